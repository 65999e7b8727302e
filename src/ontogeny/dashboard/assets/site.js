"use strict";
// The shell of a static export: the widgets of dashboard.js over data that the page holds.
(() => {
  const site = window.ontogenySite, described = site.described;
  const state = {a: described.checkpoints.length - 1, concept: "", metric: site.metrics[0] || "", part: "", panel: site.metrics.length ? "atlas" : "findings", text: 0, chat: 0, held: ""};
  const put = (parent, tag = "div") => parent.appendChild(document.createElement(tag));
  const root = put(document.body);
  root.className = "dashboard";
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.body.classList.add("body--dark");
  const header = put(root, "header"), bar = put(header), main = put(root, "main");
  bar.className = "bar";
  put(bar, "h1").textContent = `ontogeny · ${described.lineage}`;
  const fixed = [];
  const parts = () => site.parts[state.metric] || [];
  const concept = () => state.concept || described.concepts[0] || "";

  function add(list, kind, parent, options, on = () => {}) {
    list.push([window.ontogeny[kind](put(parent), options(), on), options]);
  }
  function choice(name, values, all) {
    add(fixed, "choice", bar, () => ({label: name, options: values().map((value) => ({value, label: value || all})), value: state[name], least: 2}), (_, value) => change({[name]: value}));
  }
  const checkpoint = () => { const at = described.checkpoints[state.a]; return {stage: at.stage, step: at.address, label: at.label}; };
  const atCheckpoint = (src) => ({src, text: site.texts[state.text], ...checkpoint()});
  let panel = [];
  function update() {
    if (!parts().includes(state.part)) state.part = parts()[0] || "";
    for (const [widget, options] of [...fixed, ...panel]) widget.update(options());
  }
  function change(changes) {
    const other = "panel" in changes && changes.panel !== state.panel;
    Object.assign(state, changes);
    location.replace(`#${new URLSearchParams(Object.entries(state).filter(([, value]) => value !== ""))}`);
    if (other) fill();
    update();
  }
  function fill() {
    for (const [widget] of panel) if (widget.destroy) widget.destroy();
    panel = [];
    main.replaceChildren();
    if (state.panel === "findings") add(panel, "findings", main, () => ({src: "findings"}));
    else if (state.panel === "text") {
      add(panel, "choice", main, () => ({label: "text", options: site.texts.map((text, i) => ({value: String(i), label: text})), value: String(state.text)}), (_, value) => change({text: Number(value)}));
      add(panel, "lens", main, () => ({src: "texts", fixed: true, text: site.texts[state.text], concept: concept(), method: "", site: "", positive: "", checkpoints: described.checkpoints, a: state.a, hint: ""}));
      add(panel, "logitLens", main, () => atCheckpoint("lens"));
    } else if (state.panel === "attention") {
      add(panel, "choice", main, () => ({label: "text", options: site.texts.map((text, i) => ({value: String(i), label: text})), value: String(state.text)}), (_, value) => change({text: Number(value)}));
      add(panel, "attention", main, () => ({...atCheckpoint("attention"), fixed: true}));
    } else if (state.panel === "chat") {
      add(panel, "choice", main, () => ({label: "chat", options: site.chats.map((turns, i) => ({value: String(i), label: turns.join(" | ")})), value: String(state.chat), least: 2}), (_, value) => change({chat: Number(value), held: ""}));
      add(panel, "chat", main, () => ({base: "chat", version: "", fixed: true, a: checkpoint(), b: null, state: state.held || JSON.stringify({turns: site.chats[state.chat]})}), (_, text) => change({held: text}));
    } else if (state.panel === "atlas") {
      const of = () => `${state.metric}/${state.part}${state.part === "head" ? `/${concept()}` : ""}`;
      add(panel, "chart", main, () => ({key: of(), src: `atlas/${of()}`, rows: `cells/${of()}/${state.a}`, apart: true, brief: true, eager: true,
        title: `${state.metric} at every layer${state.part === "head" ? `, heads of ${concept()}` : ""}: ${described.checkpoints[state.a].label}`}));
    } else add(panel, "chart", main, () => ({src: `charts/${state.panel}`, eager: true}));
  }
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name in state) state[name] = typeof state[name] === "number" ? Number(value) || 0 : value;
  }
  if (!site.metrics.includes(state.metric)) state.metric = site.metrics[0] || "";
  if (!described.concepts.includes(state.concept)) state.concept = "";
  if (!site.panels.some((one) => one.name === state.panel)) state.panel = site.panels[0].name;
  state.a = Math.min(Math.max(state.a, 0), described.checkpoints.length - 1);
  state.text = Math.min(Math.max(state.text, 0), Math.max(site.texts.length - 1, 0));
  state.chat = Math.min(Math.max(state.chat, 0), Math.max(site.chats.length - 1, 0));
  choice("concept", () => ["", ...described.concepts], "all concepts");
  choice("metric", () => site.metrics);
  choice("part", parts);
  add(fixed, "timeline", header, () => ({checkpoints: described.checkpoints, ticks: described.ticks, a: state.a, b: null, alone: true}), (_, value) => change({a: value.index}));
  add(fixed, "navigation", header, () => ({panels: site.panels, panel: state.panel}), (_, name) => change({panel: name}));
  fill();
  update();
})();
