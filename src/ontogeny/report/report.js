"use strict";
const figures = JSON.parse(document.getElementById("specs").textContent);
const actions = {export: {svg: true, png: true}, source: false, compiled: false, editor: false};
const PAGE = 20;

function unpack(data) {
  if (!data || !data.columns) return data;
  const rows = Array.from({length: data.n}, () => ({}));
  for (const [name, column] of Object.entries(data.columns)) {
    for (let i = 0; i < data.n; i++) {
      rows[i][name] = Array.isArray(column) ? column[i] : column.at ? column.of[column.at[i]] : column.is;
    }
  }
  return rows;
}

async function draw(name, tab) {
  const figure = figures[name];
  const spec = {...figure.tabs[tab].spec};
  if (spec.datasets) spec.datasets = Object.fromEntries(Object.entries(spec.datasets).map(([k, v]) => [k, unpack(v)]));
  figure.shown = tab;
  document.querySelectorAll(`[data-view="${name}"]`).forEach((button, i) => button.setAttribute("aria-selected", i === tab));
  await vegaEmbed(document.getElementById("view-" + name), spec, {renderer: "svg", ast: true, actions});
}

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

function shown(value) {
  return value === null || value === undefined ? "–" : typeof value === "number" ? String(Number(value.toPrecision(3))) : value;
}

function table(name, concept) {
  const figure = figures[name], place = document.getElementById("table-" + name);
  figure.rows = figure.rows || unpack(figure.table.rows);
  const rows = concept ? figure.rows.filter((row) => row.concept === concept) : figure.rows;
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  figure.page = Math.min(Math.max(figure.page || 0, 0), pages - 1);
  place.replaceChildren();
  const scroll = element("div", "", place);
  scroll.className = "scroll";
  const body = element("table", "", scroll);
  const head = element("tr", "", element("thead", "", body));
  figure.table.columns.forEach((column) => element("th", column, head));
  const lines = element("tbody", "", body);
  for (const row of rows.slice(figure.page * PAGE, (figure.page + 1) * PAGE)) {
    const line = element("tr", "", lines);
    figure.table.columns.forEach((column) => element("td", shown(row[column]), line));
  }
  const turn = element("p", "", place);
  turn.className = "turn";
  for (const [text, by] of [["‹ earlier", -1], ["later ›", 1]]) {
    const button = element("button", text, turn);
    button.type = "button";
    button.disabled = figure.page + by < 0 || figure.page + by >= pages;
    button.addEventListener("click", () => { figure.page += by; table(name, concept); });
  }
  element("span", ` page ${figure.page + 1} of ${pages}, ${rows.length.toLocaleString("en")} rows`, turn);
}

function choose(concept) {
  for (const [name, figure] of Object.entries(figures)) {
    const tab = concept ? figure.tabs.findIndex((one) => one.concepts.includes(concept)) : 0;
    if (tab >= 0 && tab !== figure.shown) draw(name, tab);
    if (figure.table) { figure.page = 0; if (figure.opened) table(name, concept); }
  }
}

document.querySelectorAll("[data-view]").forEach((button) => {
  button.addEventListener("click", () => draw(button.dataset.view, Number(button.dataset.tab)));
});
const picker = document.getElementById("concept");
if (picker) picker.addEventListener("change", () => choose(picker.value));
document.querySelectorAll("details[data-table]").forEach((details) => {
  details.addEventListener("toggle", () => {
    figures[details.dataset.table].opened = details.open;
    if (details.open) table(details.dataset.table, picker ? picker.value : "");
  });
});
(async () => {
  for (const name of Object.keys(figures)) await draw(name, 0);
  document.body.dataset.drawn = Object.keys(figures).length;
})();
