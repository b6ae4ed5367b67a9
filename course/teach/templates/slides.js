"use strict";
const main = document.querySelector("main");
const all = [...document.querySelectorAll(".slide")];
let now = 0;

// what a cell prints: columns get smaller until they fit, sentences go on in a next line instead
function narrow(wide, size) {
  const least = /\S {2,}\S/.test(wide.textContent) || !wide.matches("pre") ? 13 : 18;
  wide.style.whiteSpace = "";
  do wide.style.fontSize = `${size}px`;
  while (wide.scrollWidth > wide.clientWidth + 1 && (size -= 0.5) > least);
  if (wide.scrollWidth > wide.clientWidth + 1) {
    wide.style.whiteSpace = "pre-wrap";
    wide.style.fontSize = `${Math.max(17, size)}px`;
  }
}

// text is as large as its slide allows, formulas and printed tables as their column allows
function enlarge(body, text) {
  const alone = !body.querySelector(".pictures");
  const below = alone || body.classList.contains("beside") ? 0 : 300;
  for (let size = alone ? 32 : 26; ; size -= 0.5) {
    text.style.fontSize = `${size}px`;
    for (const wide of text.querySelectorAll("pre, math[display=block]"))
      narrow(wide, wide.matches("pre") ? Math.min(20, size) : 1.18 * size);
    if (text.offsetHeight + below <= body.clientHeight || size <= 16) return size;
  }
}

for (const slide of all) {
  const body = slide.querySelector(".body"), text = slide.querySelector(".text");
  if (!text) continue;
  const lone = body.querySelectorAll(".pictures .part").length === 1;
  const size = enlarge(body, text);
  // small text over one picture: perhaps there is more room at its side
  if (size < 20 && lone && !body.classList.contains("beside")) {
    body.classList.add("beside");
    if (enlarge(body, text) <= size) {
      body.classList.remove("beside");
      enlarge(body, text);
    }
  }
}
document.body.classList.add("on", "help");

function fit() {
  const scale = Math.min(innerWidth / 1280, innerHeight / 720);
  main.style.transform = `scale(${scale}) translate(-50%, -50%)`;
}

function show(k, complete = false) {
  now = Math.max(0, Math.min(all.length - 1, k));
  all.forEach((slide, j) => slide.classList.toggle("now", j === now));
  for (const part of all[now].querySelectorAll(".later")) part.classList.toggle("seen", complete);
  history.replaceState(null, "", `#${now + 1}`);
}

function forward() {
  const next = all[now].querySelector(".later:not(.seen)");
  if (next) next.classList.add("seen"); else if (now + 1 < all.length) show(now + 1);
}

function back() {
  const seen = [...all[now].querySelectorAll(".later.seen")];
  if (seen.length) seen.pop().classList.remove("seen"); else if (now) show(now - 1, true);
}

const keys = {
  ArrowRight: forward, ArrowDown: forward, PageDown: forward, " ": forward, Enter: forward,
  ArrowLeft: back, ArrowUp: back, PageUp: back, Backspace: back,
  Home: () => show(0), End: () => show(all.length - 1, true),
  n: () => document.body.classList.toggle("notes"),
  f: () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen(),
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = keys[event.key] || keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  document.body.classList.remove("help");
  action();
});
main.addEventListener("click", event => { if (!event.target.closest("a, aside")) forward(); });
addEventListener("resize", fit);
addEventListener("hashchange", () => show(Number(location.hash.slice(1)) - 1 || 0));
fit();
show(Number(location.hash.slice(1)) - 1 || 0);
