"use strict";
// What the page of the dashboard and its static export draw with. Every text from a run becomes a text node, never markup.
window.ontogeny = (() => {
  const INK = {"#1b1f24": "#e8ebef", "#5b6570": "#a8b2bd", "#e7eaee": "#2f363d", "#dfe3e8": "#3c444d", "#b9c0c8": "#59636e", white: "#14181d"};
  const MOST_SVG_ROWS = 3000;
  const PAGE = 50;
  const scripts = {};
  // Charts that follow checkpoint A at once; the server's answer to the same step comes later, and changes nothing then.
  const followers = new Set();
  // Charts are drawn one after the other, and the page answers and paints between two of them.
  let drawing = Promise.resolve();
  // The first chart of a panel is asked for before the others.
  let urgent = Promise.resolve();
  // While a reader steps through checkpoints, nothing else is asked for or drawn.
  let lastStep = -Infinity;
  async function calm() {
    while (performance.now() - lastStep < 300) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  let lastTurn = 0;
  // A browser has six connections to a server: with a request for each chart of a page, the script that draws them would wait for all answers.
  const MOST_REQUESTS = 2;
  const waiting = [];
  let requested = 0;

  // The rows and the specification of a chart are asked for in the order of the page, of charts that are still in view.
  function inOrder(place, isWanted, ask) {
    return new Promise((resolve, reject) => {
      waiting.push({place, isWanted, ask, resolve, reject});
      setTimeout(askNext);
    });
  }
  function askNext() {
    waiting.sort((one, other) => (one.place.compareDocumentPosition(other.place) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
    while (waiting.length && requested < MOST_REQUESTS) {
      const {isWanted, ask, resolve, reject} = waiting.shift();
      if (!isWanted()) { resolve(null); continue; }
      requested += 1;
      ask().then(resolve, reject).finally(() => { requested -= 1; askNext(); });
    }
  }

  function loadScript(address) {
    scripts[address] = scripts[address] || new Promise((resolve, reject) => {
      if (window.vegaEmbed) { resolve(); return; }
      const script = document.createElement("script");
      script.src = address;
      script.onload = resolve;
      script.onerror = () => reject(new Error("the charts' script cannot be loaded: is the dashboard still running?"));
      document.head.append(script);
    });
    return scripts[address];
  }

  function inTurn(draw) {
    const mine = drawing.then(() => new Promise((resolve) => setTimeout(resolve))).then(calm).then(draw);
    drawing = mine.catch(() => {});
    return mine;
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function drawn(tag, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // In a static export an address is a key of the page's own data.
  async function fetchJson(address, body) {
    if (window.ontogenyData) {
      const held = body && body.pins ? body.pins.map((pin) => `${pin.concept}=${pin.towards}`) : [];
      const key = body === undefined ? address : [address, ...(body.turns || []), body.concept, body.text, body.stage, body.step, ...held].filter((part) => part !== undefined).join("\n");
      if (key in window.ontogenyData) {
        const answer = window.ontogenyData[key];
        if (answer.problem) throw new Error(answer.problem);
        return answer;
      }
      throw new Error("this export does not hold it: start `ontogeny dashboard` for it.");
    }
    let answer;
    try {
      answer = await fetch(address, body === undefined ? {} : {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
    } catch {
      throw new Error("the dashboard does not answer: start it again in the terminal.");
    }
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(content.error || `the dashboard answered ${answer.status}.`);
    return content;
  }

  function unpack(data) {
    if (!data || !data.columns) return data;
    const rows = Array.from({length: data.n}, () => ({}));
    for (const [name, column] of Object.entries(data.columns)) {
      for (let i = 0; i < data.n; i++) rows[i][name] = Array.isArray(column) ? column[i] : column.at ? column.of[column.at[i]] : column.is;
    }
    return rows;
  }

  const isDark = () => document.body.classList.contains("body--dark");

  // The theme's own greys are exchanged; colours of data, and text on cells of data, stay.
  function darkened(value, key = "") {
    if (typeof value === "string") return key !== "datasets" && value in INK ? INK[value] : value;
    if (Array.isArray(value)) return value.map((item) => darkened(item, key));
    if (value === null || typeof value !== "object") return value;
    if ("condition" in value && "value" in value && key === "color") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === "datasets" || k === "usermeta" ? v : darkened(v, k)]));
  }

  function shown(value) {
    if (value === null || value === undefined || value === "") return "–";
    return typeof value === "number" ? (Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)))) : String(value);
  }

  function save(address, name) {
    element("a", {href: address, download: name}).click();
  }

  // --- a table that is paged and sorted by the server -----------------------------------------------------------------

  function table(place, options) {
    const state = {start: 0, sort: "", descending: false, turn: 0};
    async function read() {
      const turn = ++state.turn;
      const mark = options.src.includes("?") ? "&" : "?";
      const sorted = state.sort ? `&sort=${encodeURIComponent(state.sort)}&descending=${state.descending}` : "";
      try {
        const page = await fetchJson(`${options.src}${mark}start=${state.start}&most=${PAGE}${sorted}`);
        if (turn === state.turn) show(page);
      } catch (error) {
        if (turn === state.turn) place.replaceChildren(element("p", {class: "problem", role: "alert"}, error.message));
      }
    }
    function show(page) {
      const filled = page.columns.map((_, i) => page.rows.some((row) => row[i] !== null && row[i] !== ""));
      const columns = page.columns.map((name, i) => [name, i]).filter(([name, i]) => filled[i] || name === state.sort);
      const head = columns.map(([name]) => {
        const order = name === state.sort ? (state.descending ? "descending" : "ascending") : "none";
        const button = element("button", {type: "button", onclick: () => {
          state.descending = name === state.sort && !state.descending;
          Object.assign(state, {sort: name, start: 0});
          read();
        }}, name + (order === "none" ? "" : order === "ascending" ? " ↑" : " ↓"));
        return element("th", {scope: "col", "aria-sort": order}, button);
      });
      const lines = page.rows.map((row) => element("tr", {}, ...columns.map(([, i]) =>
        element("td", {class: typeof row[i] === "number" ? "number" : String(row[i] ?? "").length > 34 ? "long" : null}, shown(row[i])))));
      const last = Math.min(page.start + page.rows.length, page.count);
      const turner = (text, start, possible) => element("button", {type: "button", disabled: !possible, onclick: () => { state.start = start; read(); }}, text);
      place.replaceChildren(
        element("div", {class: "scroll", tabindex: "0"}, element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines))),
        element("p", {class: "turn"},
          turner("‹ back", Math.max(0, page.start - PAGE), page.start > 0),
          turner("next ›", page.start + PAGE, last < page.count),
          element("span", {}, page.count ? `rows ${(page.start + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${page.count.toLocaleString("en")}` : "no rows")));
      place.dataset.rows = page.count;
    }
    read();
    return {update(next) { if (next.src !== options.src) { options = next; state.start = 0; read(); } }};
  }

  // --- a chart: one live Vega view, whose rows change without a new drawing -------------------------------------------

  function chart(place, options, emit) {
    const ahead = new Map(); // rows of the checkpoints beside the one that is shown
    function rowsAt(checkpoint) {
      const to = options.follow, stage = checkpoint.stage ? `&stage=${encodeURIComponent(checkpoint.stage)}` : "";
      return `${to.rows}${stage}&step=${encodeURIComponent(checkpoint.address)}&version=${to.version}`;
    }
    async function follow({turn: step, checkpoint, beside}) {
      lastTurn = step;
      if (!options.follow || options.hidden || !view || !visible) return;
      options = {...options, title: options.follow.title + checkpoint.label, rows: rowsAt(checkpoint)};
      await change();
      if (!options.follow) return;
      for (const address of beside.map(rowsAt)) {
        if (ahead.has(address)) continue;
        ahead.set(address, fetchJson(address));
        ahead.get(address).catch(() => ahead.delete(address));
        if (ahead.size > 8) ahead.delete(ahead.keys().next().value);
      }
    }
    let view = null, tabs = [], tab = 0, about = {}, turn = 0, rowsTurn = 0, visible = Boolean(options.eager), stale = true;
    const title = element("h3", {}, options.title || ""), tabPicker = element("select", {"aria-label": "part of the chart", onchange: () => { tab = Number(tabPicker.value); embed(turn); }, hidden: true});
    const plot = element("div", {class: "plot"}), caption = element("figcaption");
    const rowsPlace = element("div");
    const details = element("details", {ontoggle: () => { if (details.open) openTable(); }}, element("summary", {}, "Rows"), rowsPlace);
    const buttons = ["PNG", "SVG", "JSON"].map((kind) => element("button", {type: "button", "aria-label": `Save as ${kind}`, onclick: () => saveAs(kind)}, kind));
    const figure = element("figure", {class: "chart"}, element("div", {class: "head"}, title, tabPicker, element("span", {class: "tools"}, ...buttons)), plot, caption, options.table ? details : null);
    place.replaceChildren(figure);
    let rows = null;

    function openTable() {
      if (!options.table) return;
      if (rows) rows.update({src: options.table}); else rows = table(rowsPlace, {src: options.table});
    }
    async function saveAs(kind) {
      if (!view) return;
      const name = `${about.name || "chart"}.${kind.toLowerCase()}`;
      if (kind === "JSON") {
        const spec = plain(tabs[tab].spec);
        if (options.rows && spec.datasets) for (const key of Object.keys(spec.datasets)) spec.datasets[key] = view.data(key);
        save(URL.createObjectURL(new Blob([JSON.stringify(spec, null, 1)], {type: "application/json"})), name);
      } else save(await view.toImageURL(kind.toLowerCase(), kind === "PNG" ? 2 : 1), name);
    }
    function plain(spec) {
      return spec.datasets ? {...spec, datasets: Object.fromEntries(Object.entries(spec.datasets).map(([k, v]) => [k, unpack(v)]))} : spec;
    }
    function problem(text) {
      if (view) { view.finalize(); view = null; }
      plot.replaceChildren(element("p", {class: "problem", role: "status"}, text));
      figure.dataset.drawn = "problem";
    }
    async function embed(mine) {
      const spec = plain(tabs[tab].spec);
      const count = Object.values(spec.datasets || {}).reduce((n, data) => n + (data ? data.length : 0), 0);
      await loadScript(options.vega);
      if (mine !== turn) return;
      if (view) view.finalize();
      plot.setAttribute("aria-label", spec.description || about.title || "chart");
      // A page on disk forbids generated code, so that Vega interprets its expressions there, which takes 1.6 times as long.
      const dark = isDark(), onCanvas = count > MOST_SVG_ROWS;
      // A canvas has no element for a mark whose description could be read.
      const shownSpec = onCanvas ? {...spec, config: {...spec.config, aria: false}} : spec;
      const result = await vegaEmbed(plot, dark ? {...darkened(shownSpec), background: "transparent"} : shownSpec,
        {renderer: onCanvas ? "canvas" : "svg", ast: Boolean(window.ontogenyData), actions: false, tooltip: {theme: dark ? "dark" : "light"}});
      view = result.view;
      view.addEventListener("click", (event, item) => {
        const datum = item && item.datum;
        if (datum && (datum.concept || datum.name)) emit("pick", {concept: datum.concept || datum.name, site: datum.site || datum.at || ""});
      });
      figure.dataset.drawn = options.rows || options.src;
    }
    function load() {
      if (options.hidden) return;
      if (!visible) { stale = true; return; }
      stale = false;
      const before = options.eager ? null : urgent, done = read(++turn, before);
      if (options.eager) urgent = Promise.all([urgent, done]);
    }
    async function read(mine, before) {
      loadScript(options.vega).catch(() => {}); // while the first chart is asked for; `embed` tells of a failure
      if (before) { await before; await calm(); }
      if (mine !== turn) return;
      figure.setAttribute("aria-busy", "true");
      try {
        const answer = await (options.eager ? fetchJson(options.src) : inOrder(place, () => mine === turn && visible, () => fetchJson(options.src)));
        if (mine !== turn) return;
        if (answer === null) { stale = true; figure.removeAttribute("aria-busy"); return; } // it has left the view
        about = answer;
        title.textContent = options.title || about.title || "";
        caption.textContent = options.brief ? "" : about.caption || "";
        tabs = about.tabs;
        tab = Math.min(tab, Math.max(tabs.length - 1, 0));
        tabPicker.replaceChildren(...tabs.map((one, i) => element("option", {value: String(i)}, one.label || "all")));
        tabPicker.hidden = tabs.length < 2;
        tabPicker.value = String(tab);
        if (tabs.length) await inTurn(() => (mine === turn ? embed(mine) : null)); else problem(about.reason);
        if (options.apart && view) await change(); // the chart holds the rows of another checkpoint
      } catch (error) { if (mine === turn) problem(error.message); }
      if (mine === turn) figure.removeAttribute("aria-busy");
      if (details.open) openTable();
    }
    async function change() {
      const mine = ++rowsTurn, drawing = turn;
      try {
        const data = await (ahead.get(options.rows) || fetchJson(options.rows));
        if (mine !== rowsTurn || drawing !== turn || !view) return;
        for (const [name, values] of Object.entries(data)) view.data(name, values); // a change set: the view stays
        await view.runAsync();
        title.textContent = options.title || title.textContent;
        if (mine === rowsTurn) figure.dataset.drawn = options.rows;
      } catch (error) { if (mine === rowsTurn) problem(error.message); }
      if (details.open) openTable();
    }
    const watcher = new IntersectionObserver((entries) => {
      visible = entries[entries.length - 1].isIntersecting;
      if (visible && stale) load();
    }, {rootMargin: "400px"});
    watcher.observe(place);
    const theme = new MutationObserver(() => { if (view && dark !== isDark()) { dark = isDark(); embed(turn); } });
    let dark = isDark();
    place.hidden = Boolean(options.hidden);
    theme.observe(document.body, {attributes: true, attributeFilter: ["class"]});
    if (visible) load();
    followers.add(follow);
    return {
      update(next) {
        if (next.turn !== undefined && next.turn < lastTurn) next = {...next, rows: options.rows, title: options.title};
        const old = options;
        options = next;
        place.hidden = Boolean(next.hidden);
        if (next.hidden) { turn += 1; return; }
        if (next.key !== undefined ? next.key !== old.key : next.src !== old.src) load();
        else if (next.rows !== old.rows) { if (view) change(); else load(); }
        else if (details.open && next.table !== old.table) openTable();
      },
      destroy() { turn += 1; followers.delete(follow); watcher.disconnect(); theme.disconnect(); if (view) view.finalize(); },
    };
  }

  // --- the timeline of checkpoints: A, and B for a comparison ------------------------------------------------------------

  function timeline(place, options, emit) {
    let playing = null, width = 0, sent = 0;
    const frame = element("div", {class: "track"});
    const play = element("button", {type: "button", class: "play", "aria-label": "Play through the checkpoints", onclick: () => (playing ? stop() : start())}, "▶");
    const compare = element("button", {type: "button", "aria-pressed": "false", onclick: () => {
      if (options.b === null) move("b", options.a === 0 ? options.checkpoints.length - 1 : 0); else choose("b", null);
    }}, "Compare");
    const label = element("output", {class: "now", "aria-live": "polite"});
    compare.hidden = Boolean(options.alone);
    place.replaceChildren(element("div", {class: "timeline"}, play, compare, label, frame));

    const ages = () => options.checkpoints.map((one) => one.age);
    function x(age) {
      const all = ages(), low = all[0], high = all[all.length - 1];
      return 22 + (high > low ? (age - low) / (high - low) : 0.5) * Math.max(width - 44, 1);
    }
    function nearest(pixel) {
      let best = 0;
      ages().forEach((age, i) => { if (Math.abs(x(age) - pixel) < Math.abs(x(ages()[best]) - pixel)) best = i; });
      return best;
    }
    function choose(which, index) {
      options = {...options, [which]: index};
      draw();
      emit("choose", {which, index, turn: ++sent});
      lastStep = performance.now();
      if (which === "a" && !options.alone) {
        const beside = [index - 1, index + 1].map((i) => options.checkpoints[i]).filter(Boolean);
        for (const follow of followers) follow({turn: sent, checkpoint: options.checkpoints[index], beside});
      }
    }
    function move(which, index) {
      const at = Math.min(Math.max(index, 0), options.checkpoints.length - 1);
      if (at !== options[which]) choose(which, at);
    }
    function start() {
      if (options.a >= options.checkpoints.length - 1) move("a", 0);
      playing = setInterval(() => { if (options.a >= options.checkpoints.length - 1) stop(); else move("a", options.a + 1); }, options.pace || 700);
      play.textContent = "⏸";
      play.setAttribute("aria-label", "Stop");
    }
    function stop() {
      clearInterval(playing);
      playing = null;
      play.textContent = "▶";
      play.setAttribute("aria-label", "Play through the checkpoints");
    }
    function steps(event) {
      return {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -Infinity, End: Infinity}[event.key];
    }
    function handle(which) {
      const at = options.checkpoints[options[which]];
      const group = drawn("g", {class: `handle ${which}`, transform: `translate(${x(at.age)},26)`, tabindex: "0", role: "slider",
        "aria-label": `Checkpoint ${which.toUpperCase()}`, "aria-valuemin": 0, "aria-valuemax": options.checkpoints.length - 1,
        "aria-valuenow": options[which], "aria-valuetext": at.label});
      group.append(drawn("circle", {r: 11}), drawn("text", {y: 4, "text-anchor": "middle"}, which.toUpperCase()));
      group.addEventListener("keydown", (event) => {
        const by = steps(event);
        if (by === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        move(which, options[which] + by);
      });
      group.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        stop();
        const drag = (moved) => move(which, nearest(moved.clientX - frame.getBoundingClientRect().left));
        const end = () => { window.removeEventListener("pointermove", drag); window.removeEventListener("pointerup", end); };
        window.addEventListener("pointermove", drag);
        window.addEventListener("pointerup", end);
      });
      return group;
    }
    function draw() {
      if (!options.checkpoints.length) { frame.replaceChildren(element("p", {class: "problem"}, "This run has no checkpoint yet.")); return; }
      const focused = document.activeElement && frame.contains(document.activeElement) ? document.activeElement.getAttribute("class") : null;
      width = frame.clientWidth || 600;
      const picture = drawn("svg", {width, height: 64, role: "group", "aria-label": "Checkpoints of the run"});
      let last = null;
      options.checkpoints.forEach((one, i) => {
        if (one.stage !== last && one.stage) {
          const inside = options.checkpoints.filter((other) => other.stage === one.stage);
          const left = x(inside[0].age) - 6, right = x(inside[inside.length - 1].age) + 6;
          picture.append(drawn("rect", {class: "stage", x: left, y: 18, width: right - left, height: 16, rx: 8}));
          const room = Math.floor((right - left + 18) / 6.5);
          const name = one.stage.length > room ? one.stage.slice(0, Math.max(room - 1, 1)) + "…" : one.stage;
          const text = drawn("text", {class: "name", x: left + 2, y: 11}, name);
          text.append(drawn("title", {}, one.stage));
          picture.append(text);
        }
        last = one.stage;
        picture.append(drawn("line", {class: "tick", x1: x(one.age), x2: x(one.age), y1: 34, y2: 40}));
      });
      let end = -Infinity;
      const labels = options.ticks.map((i) => options.checkpoints[i]).sort((a, b) => a.age - b.age);
      for (const one of labels) {
        const text = one.step % 1 ? "end" : one.step >= 10000 ? `${+(one.step / 1000).toPrecision(3)}k` : String(one.step);
        const half = text.length * 3.4 + 4;
        if (x(one.age) - half < end) continue;
        end = x(one.age) + half;
        picture.append(drawn("text", {class: "step", x: x(one.age), y: 53, "text-anchor": "middle"}, text));
      }
      const back = drawn("rect", {class: "hit", x: 0, y: 0, width, height: 64});
      back.addEventListener("pointerdown", (event) => { stop(); move(event.shiftKey && options.b !== null ? "b" : "a", nearest(event.clientX - frame.getBoundingClientRect().left)); });
      picture.append(back);
      if (options.b !== null) picture.append(handle("b"));
      picture.append(handle("a"));
      frame.replaceChildren(picture);
      if (focused) { const again = [...frame.querySelectorAll("[tabindex]")].find((one) => one.getAttribute("class") === focused); if (again) again.focus(); }
      const a = options.checkpoints[options.a], b = options.b === null ? null : options.checkpoints[options.b];
      label.textContent = b ? `A ${a.label} · B ${b.label}` : a.label;
      compare.setAttribute("aria-pressed", String(b !== null));
      compare.textContent = b ? "Compare: on" : "Compare";
    }
    function key(event) {
      const busy = event.target.closest && event.target.closest("input, select, textarea, [role=slider], .scroll, [contenteditable]");
      const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (busy || by === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      move("a", options.a + by);
    }
    document.addEventListener("keydown", key);
    const resized = new ResizeObserver(() => { if (frame.clientWidth && frame.clientWidth !== width) draw(); });
    resized.observe(frame);
    draw();
    return {
      update(next) {
        // An answer to an earlier step does not move a handle that has moved since.
        if (next.turn !== undefined && next.turn < sent) next = {...next, a: options.a, b: options.b};
        if (JSON.stringify(next) === JSON.stringify(options)) return;
        options = next;
        draw();
      },
      destroy() { stop(); resized.disconnect(); document.removeEventListener("keydown", key); },
    };
  }

  // --- small parts ---------------------------------------------------------------------------------------------------------

  function choice(place, options, emit) {
    const select = element("select", {onchange: () => emit("choose", select.value)});
    const name = element("span");
    place.replaceChildren(element("label", {class: "choice"}, name, select));
    function fill(next) {
      options = next;
      name.textContent = options.label;
      select.replaceChildren(...options.options.map((one) => element("option", {value: one.value}, one.label)));
      select.value = options.value;
      place.hidden = options.options.length < (options.least || 1);
    }
    fill(options);
    return {update: (next) => { if (JSON.stringify(next) !== JSON.stringify(options)) fill(next); }};
  }

  function navigation(place, options, emit) {
    function fill(next) {
      options = next;
      place.replaceChildren(element("nav", {class: "panels", "aria-label": "Panels"}, ...options.panels.map((one) =>
        element("button", {type: "button", "data-panel": one.name, title: one.title, "aria-current": one.name === options.panel ? "page" : null,
          onclick: () => emit("choose", one.name)}, one.label))));
      const bar = place.firstChild, current = bar.querySelector("[aria-current]");
      if (current && current.offsetLeft + current.offsetWidth > bar.clientWidth) bar.scrollLeft = current.offsetLeft - (bar.clientWidth - current.offsetWidth) / 2;
    }
    fill(options);
    return {update: (next) => { if (JSON.stringify(next) !== JSON.stringify(options)) fill(next); }};
  }

  function findings(place, options) {
    async function read() {
      try {
        const said = await fetchJson(options.src);
        const cards = said.concepts.map((one) => element("article", {}, element("h3", {}, one.name), ...one.sentences.map((text) => element("p", {}, text))));
        const warnings = said.warnings.map(([of, text]) => element("li", {}, element("b", {}, of), " ", text));
        place.replaceChildren(
          element("h2", {}, said.headline || "Findings"), element("div", {class: "cards"}, ...cards),
          element("details", {open: warnings.length > 0 && warnings.length < 6}, element("summary", {}, `Warnings (${warnings.length})`), element("ul", {}, ...warnings)));
        place.dataset.read = "yes";
      } catch (error) { place.replaceChildren(element("p", {class: "problem", role: "alert"}, error.message)); }
    }
    read();
    return {update(next) { if (next.src !== options.src) { options = next; read(); } }};
  }

  // --- the text lens: every token of a text at every checkpoint, a row each ------------------------------------------

  function lens(place, options, emit) {
    let turn = 0;
    const area = element("textarea", {rows: "3", maxlength: "4000", "aria-label": "Text", placeholder: "Type a text; every token gets the score of the probe at every checkpoint."});
    area.value = options.text;
    const go = element("button", {type: "submit"}, "Read");
    const form = element("form", {onsubmit: (event) => { event.preventDefault(); emit("text", area.value); if (area.value === options.text) read(); }}, area, go);
    const said = element("p", {class: "notice", role: "status"}), body = element("tbody");
    const grid = element("div", {class: "scroll lens", tabindex: "0"}, element("table", {"aria-label": "Score of each token at each checkpoint"}, body));
    form.hidden = Boolean(options.fixed);
    place.replaceChildren(form, said, grid);
    let rows = [];

    function paint() {
      // Beyond the score that 95 % of the tokens stay below, the colour is full: one token would make all others pale.
      const sizes = rows.flatMap((row) => (row.scores || []).map(Math.abs)).sort((a, b) => a - b);
      const most = Math.max(1e-9, sizes[Math.floor(0.95 * (sizes.length - 1))] || 0);
      body.replaceChildren(...rows.map((row, i) => {
        const head = element("th", {scope: "row"}, row.label);
        if (row.problem) return element("tr", {}, head, element("td", {class: "long"}, row.problem));
        if (!row.scores) return element("tr", {}, head, element("td", {}, "…"));
        const spans = row.tokens.map((token, k) => {
          const score = row.scores[k], share = Math.min(Math.abs(score) / most, 1) * 0.72;
          return element("span", {class: "token", title: `${score.toPrecision(3)} at ${row.label}`,
            style: `background-color: rgba(${score > 0 ? "230, 126, 34" : "52, 132, 196"}, ${share.toFixed(3)})`}, token.replaceAll("\n", "⏎"));
        });
        return element("tr", {"aria-current": i === options.a ? "true" : null}, head, element("td", {}, ...spans));
      }));
      const read = rows.filter((row) => row.scores || row.problem).length, now = body.children[options.a];
      if (read === 1 && now) grid.scrollTop = Math.max(0, now.offsetTop - grid.clientHeight / 2);
      if (read) grid.dataset.read = String(read);
    }

    // The chosen checkpoint first, then those next to it.
    async function read() {
      const mine = ++turn;
      rows = options.checkpoints.map((one) => ({label: one.label}));
      delete grid.dataset.read;
      if (!options.text.trim()) { body.replaceChildren(); said.textContent = options.hint; return; }
      paint();
      const order = options.checkpoints.map((_, i) => i).sort((i, k) => Math.abs(i - options.a) - Math.abs(k - options.a));
      for (const i of order) {
        const at = options.checkpoints[i];
        try {
          const answer = await fetchJson(options.src, {text: options.text, concept: options.concept, site: options.site, method: options.method, stage: at.stage, step: at.address});
          if (mine !== turn) return;
          Object.assign(rows[i], answer);
          const space = /\s$/.test(options.text) ? " The text ends in a space, which may be a token of its own." : "";
          said.textContent = `${options.concept} at ${answer.site}, ${answer.method}. Orange: towards ${options.positive || "the positive class"}; blue: away. ` +
            `The probe was fitted at the position “${answer.position}”; scores of other tokens are an extrapolation.${space}`;
        } catch (error) {
          if (mine !== turn) return;
          rows[i].problem = error.message;
          if (rows.filter((row) => row.problem === error.message).length > 1 && !rows.some((row) => row.scores)) {
            // The same for every checkpoint: said once.
            said.textContent = "";
            body.replaceChildren(element("tr", {}, element("td", {class: "long"}, error.message)));
            grid.dataset.read = "problem";
            return;
          }
        }
        paint();
      }
    }
    read();
    return {update(next) {
      const old = options;
      options = next;
      if (["src", "text", "concept", "site", "method"].some((name) => next[name] !== old[name])) { if (next.text !== old.text) area.value = next.text; read(); }
      else paint();
    }, destroy() { turn += 1; }};
  }

  // --- the logit lens: the next token that each layer holds, at checkpoint A ---------------------------------------------

  function logitLens(place, options) {
    let turn = 0;
    async function read() {
      const mine = ++turn;
      if (!options.text.trim()) { place.replaceChildren(); delete place.dataset.read; return; }
      const head = element("h3", {class: "below"}, `Logit lens at ${options.label}`);
      try {
        const answer = await fetchJson(options.src, {text: options.text, stage: options.stage, step: options.step});
        if (mine !== turn) return;
        const names = element("tr", {}, element("th", {scope: "col"}, "layer"), ...answer.tokens.map((token) => element("th", {scope: "col"}, token.replaceAll("\n", "⏎"))));
        const lines = answer.layers.map((cells, layer) => element("tr", {}, element("th", {scope: "row"}, String(layer)), ...cells.map(([word, p]) =>
          element("td", {title: `${p} after ${layer ? `block ${layer}` : "the embedding"}`, style: `background-color: rgba(52, 132, 196, ${(0.72 * p).toFixed(3)})`}, word.replaceAll("\n", "⏎").trim() || "␣")))).reverse();
        place.replaceChildren(head, element("p", {class: "notice"}, "The next token that the residual stream of each layer gives at each token of the text, by the model’s own final norm and unembedding; a stronger colour is more probable. The last layer is the model’s own answer."),
          element("div", {class: "scroll logits", tabindex: "0"}, element("table", {}, element("thead", {}, names), element("tbody", {}, ...lines))));
        place.dataset.read = `${options.stage} ${options.step}`;
      } catch (error) {
        if (mine === turn) place.replaceChildren(head, element("p", {class: "problem", role: "status"}, error.message));
      }
    }
    read();
    return {update(next) { if (JSON.stringify(next) !== JSON.stringify(options)) { options = next; read(); } }, destroy() { turn += 1; }};
  }

  function tools(place, options, emit) {
    const said = element("span", {role: "status", class: "notice"});
    place.replaceChildren(element("span", {class: "bar"},
      element("button", {type: "button", "aria-label": "Light or dark", onclick: () => emit("dark", !isDark())}, "◐"),
      element("button", {type: "button", onclick: async () => {
        // Without the token: who opens it adds the token of their own dashboard.
        const address = new URL(location.href);
        address.searchParams.delete("token");
        try { await navigator.clipboard.writeText(address.href); said.textContent = "copied, without the token"; } catch { said.textContent = address.href; }
      }}, "Copy link"), said));
    return {update() {}};
  }

  function notice(place, options) {
    const fill = (next) => place.replaceChildren(element("p", {class: next.problem ? "problem" : "notice", role: next.problem ? "alert" : null}, next.text));
    fill(options);
    return {update: fill};
  }

  return {lens, logitLens, tools, notice, chart, table, timeline, choice, navigation, findings, fetchJson, element, drawn, shown, isDark};
})();
