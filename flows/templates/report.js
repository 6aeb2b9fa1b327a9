/* The wall: each clip is a strip of frames that slides, forth and back, while it is pointed at. */
const FRAME_MILLISECONDS = 160;

function buildClip(clip) {
  const strip = make("img", { src: clip.strip, alt: "", decoding: "async", loading: "lazy" });
  const frame = make("span", { className: "window" }, strip);
  frame.style.aspectRatio = `${clip.width} / ${clip.height}`;
  strip.style.width = `${clip.frames * 100}%`;
  const button = make("button", { type: "button" }, frame, make("img", { className: "motion", src: clip.motion, alt: "", decoding: "async", loading: "lazy" }));
  const said = [clip.category, clip.speed !== null ? `${(100 * clip.speed).toFixed(1)} %/s` : "", clip.moving !== null ? `${Math.round(clip.moving * 100)} % moves` : ""].filter(Boolean).join(" · ");
  button.setAttribute("aria-label", `Clip ${clip.name}: ${said}. Press to play.`);
  let timer = 0, tick = 0;
  const show = () => {
    const last = clip.frames - 1, at = last ? tick % (2 * last) : 0;
    strip.style.transform = `translateX(${-100 * (at <= last ? at : 2 * last - at) / clip.frames}%)`;
    tick++;
  };
  const play = () => { if (!timer) timer = setInterval(show, FRAME_MILLISECONDS); };
  const stop = () => { clearInterval(timer); timer = 0; };
  button.addEventListener("pointerenter", play);
  button.addEventListener("pointerleave", stop);
  button.addEventListener("focus", play);
  button.addEventListener("blur", stop);
  button.addEventListener("click", () => { if (timer) stop(); else play(); });
  return make("li", { className: "clip" }, button, make("p", {}, make("span", { className: "name", textContent: clip.name, title: clip.name }), make("span", { className: "sub", textContent: said })));
}

const wall = byId("wall");
if (wall) wall.append(...page.clips.map(buildClip));
