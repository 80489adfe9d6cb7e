"use strict";
// The table of trials: sorted, paged, filtered; details on demand. All text is written as text, never as markup.
const SIZE = 50, SVG = "http://www.w3.org/2000/svg";
const state = { key: "n", down: true, page: 0, show: "all", find: "", open: new Set() };
let rows = [], packs = {};

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function load(text) {
  const known = JSON.parse(text), columns = await unpacked(known.rows), names = Object.keys(columns);
  rows = (columns.n || []).map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  packs = known.details;
}

function make(name, attributes, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...inside.filter((part) => part !== null && part !== ""));
  return made;
}

const signed = (v, places = 4) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(places);

function chosen() {
  const words = state.find.toLowerCase(), key = state.key, sign = state.down ? -1 : 1;
  const found = rows.filter(
    (row) => (state.show === "all" || row.kind === state.show) && (!words || row.idea.toLowerCase().includes(words)));
  const order = (a, b) => {
    const x = a[key], y = b[key];
    if (x === y) return b.n - a.n;
    if (x === null || y === null) return x === null ? 1 : -1;
    return sign * (x < y ? -1 : 1);
  };
  return found.sort(order);
}

function draw() {
  const table = document.getElementById("trial-table");
  if (!table) return;
  const found = chosen(), pages = Math.max(1, Math.ceil(found.length / SIZE));
  state.page = Math.min(Math.max(0, state.page), pages - 1);
  const body = make("tbody"), waits = [];
  for (const row of found.slice(state.page * SIZE, (state.page + 1) * SIZE)) {
    const open = state.open.has(row.n), detail = make("tr", { class: "inside", id: "d" + row.n }, make("td", { colspan: "6" }));
    const button = make("button", { type: "button", "aria-expanded": open }, row.idea);
    const delta = make("td", { class: "delta" }, row.delta === null ? "" : signed(row.delta));
    if (row.low !== null && row.high !== null && row.delta !== null)
      delta.append(make("span", { class: "interval-text" }, ` [${signed(row.low)}, ${signed(row.high)}]`));
    body.append(make("tr", { class: row.kind, id: "t" + row.n },
      make("td", { class: "n" }, String(row.n)), make("td", { class: "idea" }, button),
      make("td", { class: "count" }, String(row.count)),
      make("td", { class: "value" }, row.value === null ? "–" : row.value.toFixed(4)), delta,
      make("td", { class: "word" }, make("span", {}, row.word))));
    button.addEventListener("click", () => {
      state.open.has(row.n) ? state.open.delete(row.n) : state.open.add(row.n);
      draw();
    });
    if (open) { body.append(detail); waits.push(fill(detail.firstChild, row.n)); }
  }
  table.tBodies[0].replaceWith(body);
  for (const head of table.tHead.rows[0].cells) {
    const key = head.dataset.key, own = key === state.key;
    if (!head.firstElementChild) {
      head.replaceChildren(make("button", { type: "button" }, head.textContent));
      head.firstChild.addEventListener("click", () => {
        state.down = state.key === key ? !state.down : key !== "idea";
        [state.key, state.page] = [key, 0];
        draw();
      });
    }
    head.setAttribute("aria-sort", own ? (state.down ? "descending" : "ascending") : "none");
  }
  const nav = document.getElementById("pages");
  nav.hidden = pages < 2;
  const turn = (words, page) => {
    const made = make("button", { type: "button" }, words);
    made.disabled = page < 0 || page >= pages;
    made.addEventListener("click", () => { state.page = page; draw(); });
    return made;
  };
  nav.replaceChildren(turn("Previous", state.page - 1),
    make("span", { "aria-live": "polite" }, ` page ${state.page + 1} of ${pages}, ${found.length} trials `), turn("Next", state.page + 1));
  document.getElementById("trials-note").textContent = "Click a heading to sort, a hypothesis for its runs, change and log.";
  return Promise.all(waits);
}

async function fill(cell, number) {
  if (!packs[number]) { cell.append(make("p", { class: "note" }, "Its details are not in this page; see the session’s folder.")); return; }
  const d = await unpacked(packs[number]), said = make("p", {}, d.said);
  cell.replaceChildren(said);
  if (d.runs.length) {
    const heads = ["arm", "value", "tok/s", "seconds", ""].map((h) => make("th", {}, h));
    const lines = d.runs.map(([arm, value, rate, seconds, words]) => make("tr", {}, ...[arm,
      value === null ? "–" : value.toFixed(6), rate === null ? "–" : rate.toLocaleString("en"), String(seconds), words].map((t) => make("td", {}, t))));
    cell.append(make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines))));
  }
  if (d.curves.length) cell.append(curves(d.base, d.curves));
  if (d.diff.length) cell.append(make("pre", { tabindex: "0" }, ...d.diff.map(diffLine)));
  if (d.missing) cell.append(make("p", { class: "note" }, d.missing));
  if (d.log.length)
    cell.append(make("details", { class: "log" }, make("summary", {}, "End of " + d.logName), make("pre", { tabindex: "0" }, d.log.join("\n"))));
}

function diffLine(line) {
  const head = /^(diff |index |\+\+\+|---|@)/.test(line);
  return make("span", { class: head ? "at" : line[0] === "+" ? "add" : line[0] === "-" ? "del" : "" }, line + "\n");
}

function curves(base, own) {
  const all = [...base, ...own], end = Math.max(...all.map((c) => c[c.length - 1][0])) || 1;
  const late = all.flat().filter(([t]) => t >= 0.25 * end).map(([, loss]) => loss);
  const low = Math.min(...late), high = Math.max(...late), x = (t) => 44 + (466 * t) / end;
  const y = (loss) => 190 - (176 * (loss - low)) / (high - low || 1);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 520 220");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "training loss over seconds, the incumbent’s in grey");
  svg.setAttribute("class", "loss");
  const add = (name, attributes, words) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (words) made.textContent = words;
    svg.append(made);
  };
  for (const value of [low, (low + high) / 2, high]) {
    add("line", { x1: 44, x2: 510, y1: y(value), y2: y(value), class: "grid" });
    add("text", { x: 38, y: y(value) + 4, class: "tick", "text-anchor": "end" }, value.toFixed(2));
  }
  add("text", { x: 44, y: 212, class: "tick" }, "training loss");
  add("text", { x: 510, y: 212, class: "tick", "text-anchor": "end" }, `${end.toFixed(0)} seconds`);
  all.forEach((curve, i) => {
    const seen = curve.filter(([, loss]) => loss <= high + 0.02 * (high - low));
    if (seen.length > 1)
      add("path", { d: "M" + seen.map(([t, loss]) => `${x(t).toFixed(1)} ${y(loss).toFixed(1)}`).join("L"), fill: "none", class: i < base.length ? "loss-incumbent" : "loss-own" });
  });
  return svg;
}

function follow() {
  const found = /^#t(\d+)$/.exec(location.hash);
  if (!found) return;
  const number = Number(found[1]);
  [state.show, state.find] = ["all", ""];
  state.page = Math.max(0, Math.floor(chosen().findIndex((row) => row.n === number) / SIZE));
  state.open.add(number);
  draw();
  const row = document.getElementById("t" + number);
  if (row) row.scrollIntoView({ block: "center" });
}

function listen() {
  for (const box of document.querySelectorAll("input[name=show]")) {
    box.checked = box.value === state.show;
    box.onchange = () => { [state.show, state.page] = [box.value, 0]; draw(); };
  }
  const find = document.getElementById("find");
  find.value = state.find;
  find.oninput = () => { [state.find, state.page] = [find.value, 0]; draw(); };
  document.querySelector(".controls").hidden = false;
}

(async () => {
  if (typeof DecompressionStream === "undefined") return;
  await load(document.getElementById("data").textContent);
  listen();
  draw();
  follow();
  window.addEventListener("hashchange", follow);
  document.body.setAttribute("data-ready", "");
})();
