/* The grid keeps only the cards in view in the document, so that thousands of loops stay smooth.
   Item fields: n name, s status, l loop, t its kind (video | picture | frames), p poster, m motion picture,
   w h size, f frames, d seconds, c category, v speed class, x speed, a moving share, r reason, e message,
   q warnings, z time finished. */
const items = page.items;
const statusNames = { ok: "Loops", rejected: "Not animated", failed: "Failed" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const touch = matchMedia("(hover: none)");
const grid = byId("grid");
const state = { status: items.some((i) => i.s === "ok") ? "ok" : "all", shown: [], active: 0, playAll: touch.matches && !calm.matches };
const cards = new Map();
let layout = { columns: 1, width: 0, height: 0 };
const GAP = 22, CAPTION = 36, SPARE_ROWS = 2, PLAYING_LIMIT = 24;

const words = (code) => String(code).replaceAll("_", " ");
const itemKind = (item) => (item.s === "ok" ? "" : ` ${item.s}`);
const subtitle = (item) => (item.s === "ok" ? [item.c, item.v].filter(Boolean).map(words).join(" · ") : words(item.r || item.s));

/* ---- filters ---- */
function fill(select, all, values) {
  const seen = new Map();
  for (const value of values) if (value) seen.set(value, (seen.get(value) || 0) + 1);
  select.replaceChildren(make("option", { value: "", textContent: all }));
  for (const [value, count] of [...seen].sort()) select.append(make("option", { value, textContent: `${words(value)} (${count})` }));
}

function drawStatuses() {
  const tally = { all: items.length };
  for (const item of items) tally[item.s] = (tally[item.s] || 0) + 1;
  byId("statuses").replaceChildren(...["ok", "rejected", "failed", "all"].filter((name) => tally[name]).map((name) => {
    const button = make("button", { className: "quiet", type: "button" }, statusNames[name] || "All");
    button.append(make("span", { className: "tally", textContent: tally[name].toLocaleString() }));
    button.setAttribute("aria-pressed", String(state.status === name));
    button.addEventListener("click", () => { state.status = name; drawStatuses(); filter(); });
    return button;
  }));
}

const orders = {
  name: (a, b) => a.n.localeCompare(b.n, undefined, { numeric: true }),
  newest: (a, b) => (b.z || 0) - (a.z || 0),
  fastest: (a, b) => (b.x || 0) - (a.x || 0),
  largest: (a, b) => (b.a || 0) - (a.a || 0),
};

/* Only the filters that mean something for what is shown. */
function drawFilters() {
  const shown = { category: state.status === "ok" || state.status === "all", speed: state.status === "ok" || state.status === "all", reason: state.status !== "ok" };
  for (const [id, useful] of Object.entries(shown)) {
    const select = byId(id);
    select.parentElement.hidden = !useful || select.options.length < 2;
    if (select.parentElement.hidden) select.value = "";
  }
}

function filter() {
  drawFilters();
  const wanted = byId("search").value.trim().toLocaleLowerCase();
  const [category, speed, reason] = ["category", "speed", "reason"].map((id) => byId(id).value);
  state.shown = items.filter((item) =>
    (state.status === "all" || item.s === state.status) && (!wanted || item.n.toLocaleLowerCase().includes(wanted)) &&
    (!category || item.c === category) && (!speed || item.v === speed) && (!reason || item.r === reason));
  state.shown.sort(orders[byId("order").value]);
  state.active = 0;
  for (const card of cards.values()) discard(card);
  cards.clear();
  byId("nothing").hidden = state.shown.length > 0;
  byId("count").textContent = `${state.shown.length.toLocaleString()} of ${items.length.toLocaleString()} photos`;
  measure();
}

/* ---- the grid ---- */
function measure(again = false) {
  const width = grid.clientWidth;
  const columns = Math.max(1, Math.floor((width + GAP) / (270 + GAP)));
  const card = (width - GAP * (columns - 1)) / columns;
  layout = { columns, width: card, height: Math.round(card * 0.75 + CAPTION + GAP) };
  grid.style.height = `${Math.ceil(state.shown.length / columns) * layout.height}px`;
  // A page that grew beyond the window has a scroll bar now, which takes its share of the width.
  if (grid.clientWidth !== width && !again) { measure(true); return; }
  draw();
}

function draw() {
  const top = -grid.getBoundingClientRect().top;
  const firstRow = Math.max(0, Math.floor(top / layout.height) - SPARE_ROWS);
  const lastRow = Math.floor((top + innerHeight) / layout.height) + SPARE_ROWS;
  const from = firstRow * layout.columns, to = Math.min(state.shown.length, (lastRow + 1) * layout.columns);
  for (const [index, card] of cards) {
    const holdsFocus = card.contains(document.activeElement);
    if ((index < from || index >= to) && !holdsFocus) { discard(card); cards.delete(index); }
  }
  for (let index = from; index < to; index++) {
    if (!cards.has(index)) { const card = buildCard(index); cards.set(index, card); grid.append(card); }
  }
  for (const [index, card] of cards) place(index, card);
  playInView();
}

function place(index, card) {
  const row = Math.floor(index / layout.columns), column = index % layout.columns;
  card.style.width = `${layout.width}px`;
  card.style.transform = `translate(${column * (layout.width + GAP)}px, ${row * layout.height}px)`;
  card.firstChild.tabIndex = index === state.active ? 0 : -1;
}

function buildCard(index) {
  const item = state.shown[index];
  const frame = make("span", { className: "frame" });
  if (item.p) frame.append(make("img", { src: item.p, alt: "", decoding: "async", loading: "lazy", draggable: false }));
  if (item.s !== "ok") frame.append(make("span", { className: "why" }, make("b", { textContent: words(item.r || item.s) }), make("span", { textContent: item.e || "" })));
  const button = make("button", { type: "button" }, frame);
  button.setAttribute("aria-label", `${item.n}: ${statusNames[item.s].toLowerCase()}, ${subtitle(item)}`);
  const caption = make("div", { className: "caption" },
    make("span", { className: "name", textContent: item.n, title: item.n }), make("span", { className: "sub", textContent: item.s === "ok" ? subtitle(item) : item.s }));
  const card = make("li", { className: `card${itemKind(item)}` }, button, caption);
  card.setAttribute("aria-setsize", String(state.shown.length));
  card.setAttribute("aria-posinset", String(index + 1));
  card.setAttribute("data-index", String(index));
  card.addEventListener("pointerenter", () => { card.hovered = true; setTimeout(() => card.hovered && play(card), 90); });
  card.addEventListener("pointerleave", () => { card.hovered = false; if (!state.playAll) stop(card); });
  button.addEventListener("focus", () => { state.active = index; play(card); for (const [i, c] of cards) c.firstChild.tabIndex = i === index ? 0 : -1; });
  button.addEventListener("blur", () => { if (!state.playAll && !card.hovered) stop(card); });
  button.addEventListener("click", () => open(index));
  return card;
}

function moving(item, className) {
  if (item.t === "video") {
    const video = make("video", { className, src: item.l, muted: true, loop: true, playsInline: true, preload: "auto", tabIndex: -1 });
    video.setAttribute("aria-hidden", "true");
    return video;
  }
  return make("img", { className: `${className} moving`, src: item.l, alt: "" });
}

function play(card) {
  const item = state.shown[Number(card.dataset.index)];
  if (card.loop || !item || item.s !== "ok" || !item.l || item.t === "frames") return;
  const loop = card.loop = moving(item, "loop");
  card.querySelector(".frame").append(loop);
  if (item.t === "video") {
    loop.addEventListener("playing", () => loop.classList.add("showing"), { once: true });
    loop.addEventListener("error", () => { if (card.loop === loop) stop(card); });
    loop.play().catch(() => {});
  } else loop.addEventListener("load", () => loop.classList.add("showing"), { once: true });
}

function stop(card) {
  const loop = card.loop;
  if (!loop) return;
  card.loop = null;
  release(loop);
}

/* A detached video keeps its decoder until its source is taken away. */
function release(loop) {
  if (loop.tagName === "VIDEO") { loop.pause(); loop.removeAttribute("src"); loop.load(); }
  loop.remove();
}

function discard(card) { stop(card); card.hovered = false; card.remove(); }

function playInView() {
  if (!state.playAll) return;
  let playing = 0;
  for (const [, card] of [...cards].sort((a, b) => a[0] - b[0])) {
    const box = card.getBoundingClientRect();
    if (box.bottom > 0 && box.top < innerHeight && playing < PLAYING_LIMIT) { play(card); playing++; }
    else if (!card.hovered) stop(card);
  }
}

/* ---- keyboard ---- */
grid.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.columns, ArrowUp: -layout.columns, PageDown: 3 * layout.columns, PageUp: -3 * layout.columns, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  focusCard(Math.min(state.shown.length - 1, Math.max(0, state.active + steps[event.key])));
});

function focusCard(index) {
  state.active = index;
  const rowTop = grid.getBoundingClientRect().top + scrollY + Math.floor(index / layout.columns) * layout.height;
  const margin = 90;
  if (rowTop < scrollY + margin) scrollTo(0, rowTop - margin);
  else if (rowTop + layout.height > scrollY + innerHeight) scrollTo(0, rowTop + layout.height - innerHeight + 10);
  draw();
  const card = cards.get(index);
  if (card) card.firstChild.focus({ preventScroll: true });
}

/* ---- one photo, large ---- */
const viewer = byId("viewer"), stage = byId("stage");
let current = -1, view = "loop", share = 50;

function open(index) {
  current = index;
  show();
  if (!viewer.open) viewer.showModal();
  fit();
}

function show() {
  const item = state.shown[current];
  byId("viewer-name").textContent = item.n;
  byId("previous").disabled = current === 0;
  byId("next").disabled = current === state.shown.length - 1;
  const views = { loop: item.s === "ok", compare: item.s === "ok" && item.p && item.t !== "frames", motion: Boolean(item.m) };
  if (!views[view]) view = "loop";
  byId("views").hidden = item.s !== "ok";
  for (const button of byId("views").children) {
    button.hidden = !views[button.dataset.view];
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  byId("legend").hidden = view !== "motion";
  clearStage();
  drawStage(item);
  drawFacts(item);
  fit();
}

function clearStage() {
  for (const video of stage.querySelectorAll("video")) release(video);
  stage.replaceChildren();
}

function drawStage(item) {
  if (item.s !== "ok") {
    stage.append(make("div", { className: "why" }, make("b", { textContent: words(item.r || item.s) }), item.e || ""));
    return;
  }
  if (item.p) stage.append(make("img", { src: item.p, alt: `The photo ${item.n}` }));
  if (item.t !== "frames") {
    const loop = moving(item, "loop showing");
    stage.append(loop);
    if (loop.play) loop.play().catch(() => {});
    if (view === "compare") addDivider(loop);
  }
  if (view === "motion") stage.append(make("img", { className: "motion", src: item.m, alt: "The predicted motion, in colour" }));
}

function addDivider(loop) {
  const line = make("span", { className: "divider" });
  const range = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: String(share) });
  range.setAttribute("aria-label", "Divide between the photo on the left and the loop on the right, in percent");
  const move = () => { share = Number(range.value); line.style.left = `${share}%`; loop.style.clipPath = `inset(0 0 0 ${share}%)`; };
  range.addEventListener("input", move);
  stage.append(line, make("span", { className: "tag before", textContent: "Photo" }), make("span", { className: "tag after", textContent: "Loop" }), range);
  move();
}

function drawFacts(item) {
  const facts = [];
  if (item.w) facts.push(["Size", `${item.w} × ${item.h}`]);
  if (item.f) facts.push(["Loop", item.d ? `${item.d.toFixed(1)} s, ${item.f} frames` : `${item.f} frames`]);
  if (item.c) facts.push(["Motion", words(item.c)]);
  if (item.x) facts.push(["Mean speed", `${item.x.toFixed(2)} px/frame`]);
  if (item.a) facts.push(["Moving part", `${Math.round(item.a * 100)} %`]);
  if (item.q && item.q.length) facts.push(["Note", item.q.map(words).join("; ")]);
  byId("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
  if (item.l && item.t !== "frames") byId("facts").append(make("div", {}, make("a", { href: item.l, download: "", textContent: "Download" })));
}

/* The stage has the photo's shape and as much of the window as is free. */
function fit() {
  const item = state.shown[current];
  if (!item || !item.w || item.s !== "ok") { stage.style.width = stage.style.height = ""; return; }
  const room = stage.parentElement.clientWidth, tall = Math.max(200, innerHeight * 0.96 - 230);
  const scale = Math.min(room / item.w, tall / item.h, 2);
  stage.style.width = `${Math.round(item.w * scale)}px`;
  stage.style.height = `${Math.round(item.h * scale)}px`;
}

function step(by) {
  const next = current + by;
  if (next >= 0 && next < state.shown.length) { current = next; show(); }
}

viewer.addEventListener("close", () => { clearStage(); focusCard(current); });
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return;
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
byId("close").addEventListener("click", () => viewer.close());
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("views").addEventListener("click", (event) => { if (event.target.dataset.view) { view = event.target.dataset.view; show(); } });

/* ---- begin ---- */
fill(byId("category"), "Any motion", items.map((i) => i.c));
fill(byId("speed"), "Any speed", items.map((i) => i.v));
fill(byId("reason"), "Any reason", items.map((i) => i.r));
for (const id of ["category", "speed", "reason", "order"]) byId(id).addEventListener("change", filter);
byId("search").addEventListener("input", filter);
const playButton = byId("play");
const showPlaying = () => playButton.setAttribute("aria-pressed", String(state.playAll));
playButton.addEventListener("click", () => {
  state.playAll = !state.playAll;
  showPlaying();
  if (state.playAll) playInView(); else for (const card of cards.values()) stop(card);
});
let waiting = false;
const later = (work) => () => { if (waiting) return; waiting = true; requestAnimationFrame(() => { waiting = false; work(); }); };
addEventListener("scroll", later(draw), { passive: true });
addEventListener("resize", later(() => { measure(); fit(); }));
showPlaying();
drawStatuses();
filter();
