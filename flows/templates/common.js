"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/* An element with properties and children; text is always set as text. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/* Light, dark or as the system says; remembered where the browser lets us. */
(function theme() {
  const order = ["auto", "light", "dark"];
  const recall = () => { try { return localStorage.getItem("stillstream-theme"); } catch { return null; } };
  const keep = (value) => { try { localStorage.setItem("stillstream-theme", value); } catch { /* private window */ } };
  const button = byId("theme");
  let current = order.includes(recall()) ? recall() : "auto";
  const apply = () => {
    if (current === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
    button.textContent = `Theme: ${current}`;
  };
  button.addEventListener("click", () => { current = order[(order.indexOf(current) + 1) % 3]; keep(current); apply(); });
  apply();
})();
