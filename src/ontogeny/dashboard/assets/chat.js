"use strict";
// The instrumented chat and the steering bench. Every text from a run, a model or a reader becomes a text node, never markup.
(() => {
  const {element, fetchJson} = window.ontogeny;
  const SUBJECTS = {user: "User model", system: "System model"};
  const ARMS = {plain: "as it is", steered: "steered", random: "random twin"};
  const CAVEAT = "A gauge is the estimate of a linear probe: it can be wrong, and as biased as the texts that it was fitted on. That an attribute can be read does not show that the model uses it.";
  const percent = (share) => `${Math.round(100 * share)} %`;
  const place = (at) => ({stage: at.stage, step: at.step});
  const brief = (number) => (number === null ? "–" : String(Number(number.toPrecision(2))));
  const tokenText = (text) => text.replaceAll("\n", "⏎");

  function svg(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function titled(made, text) {
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = text;
    made.append(title);
    return made;
  }

  function parsed(text) {
    let given = {};
    try { given = JSON.parse(text || "{}"); } catch { given = {}; }
    if (given === null || typeof given !== "object" || Array.isArray(given)) given = {};
    const list = (value) => (Array.isArray(value) ? value : []);
    return {
      turns: list(given.turns).filter((one) => typeof one === "string"),
      gauges: Array.isArray(given.gauges) ? given.gauges.filter((one) => typeof one === "string") : null,
      pins: list(given.pins).filter((one) => one && typeof one.concept === "string"),
      alarms: given.alarms && typeof given.alarms === "object" ? given.alarms : {},
      tokens: Number.isInteger(given.tokens) ? given.tokens : 24,
      colour: typeof given.colour === "string" ? given.colour : "",
    };
  }

  // The probability of one class after each turn, as a line; a reading that is no answer is an open circle.
  function sparkline(turns, index, name) {
    const width = 72, height = 20, step = turns.length > 1 ? (width - 8) / (turns.length - 1) : 0;
    const at = (turn, i) => [4 + i * step, height - 4 - turn.probabilities[index] * (height - 8)];
    const line = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "spark", role: "img", "aria-label": `${name} after each turn: ${turns.map((turn) => percent(turn.probabilities[index])).join(", ")}`});
    line.append(svg("line", {x1: 0, x2: width, y1: height / 2, y2: height / 2, class: "half"}));
    line.append(svg("polyline", {points: turns.map((turn, i) => at(turn, i).join(",")).join(" "), class: "course"}));
    turns.forEach((turn, i) => {
      const [x, y] = at(turn, i);
      line.append(titled(svg("circle", {cx: x, cy: y, r: 2.6, class: turn.state === "read" ? "sure" : "unsure"}), `turn ${i + 1}: ${percent(turn.probabilities[index])}, ${turn.state}`));
    });
    return line;
  }

  function numbers(rows) {
    return element("table", {class: "numbers"}, element("tbody", {}, ...rows.filter(([, text]) => text).map(([name, text]) => element("tr", {}, element("th", {scope: "row"}, name), element("td", {}, text)))));
  }

  const shown = window.ontogeny.shown;

  function provenance(card, read, control) {
    const last = read && read.turns[read.turns.length - 1];
    return numbers([
      ["reading probe", card.method && `${card.method} at ${card.site}, position ${card.position}`],
      ["held out", card.n ? `${card.n} texts in ${card.groups} groups` : ""],
      ["AUROC", card.auroc === null ? "" : `${shown(card.auroc)} [${shown(card.low)}, ${shown(card.high)}]`],
      ["floors of it", card.floors.map(([name, value]) => `${name} ${shown(value)}`).join(", ")],
      ["calibration error", card.ece === null ? "" : `${shown(card.ece)}; perfect calibration stays below ${shown(card.ece_noise)} on so few texts`],
      ["gauge pack", card.pack || ""],
      [card.pack ? "fitted on" : "run of", card.traced],
      ["typicality", last ? `p ${shown(last.typicality)} of the class that it is nearest to; below .01 it is off the distribution` : ""],
      ["without template", control && control.bare ? `${card.classes.map((name, i) => `${name} ${percent(control.bare.probabilities[i])}`).join(", ")} (${control.bare.state}): the last words alone` : ""],
      ["against chance", control && control.random_p !== null ? `the score lies ${shown(control.moved)} from its mean over the tokens; 95 % of 199 random directions of equal length within ${shown(control.random_moved)} (p ${shown(control.random_p)})` : ""],
      ["control vector", card.control_site ? `mass_mean at ${card.control_site}: another vector than the probe. ${card.control || "Not evaluated: run `ontogeny evaluate`."}` : ""],
    ]);
  }

  // In a static export (`fixed`) the user's turns are given, and a pin is one that the export holds.
  function chat(root, options, emit) {
    let state = parsed(options.state), turn = 0;
    const area = element("textarea", {rows: "2", maxlength: "4000", "aria-label": "Message", placeholder: "Write as the user; Enter sends."});
    const send = element("button", {type: "submit"}, "Send"), clear = element("button", {type: "button", onclick: () => change({turns: [], pins: []})}, "New chat");
    const undo = element("button", {type: "button", "aria-label": "Take the last turn back", onclick: () => { area.value = state.turns[state.turns.length - 1] || ""; change({turns: state.turns.slice(0, -1)}); }}, "Undo");
    const form = element("form", {onsubmit: (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      const words = area.value.trim();
      area.value = "";
      change({turns: [...state.turns, words]});
    }}, area, send, undo, clear);
    area.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); } });
    const colour = element("select", {onchange: () => change({colour: colour.value})});
    const length = element("input", {type: "number", min: "1", max: "256", "aria-label": "longest answer, tokens", onchange: () => change({tokens: Math.min(Math.max(Number(length.value) || 24, 1), 256)})});
    const chooser = element("details", {class: "chooser"}), pinBar = element("p", {class: "bar pins"}), columns = element("div", {class: "chat-columns"});
    const note = element("p", {class: "notice", role: "status"});
    root.replaceChildren(element("p", {class: "caveat"}, CAVEAT),
      element("p", {class: "bar"}, element("label", {class: "choice keep"}, element("span", {}, "colour tokens by"), colour), element("label", {class: "choice keep"}, element("span", {}, "longest answer"), length)),
      chooser, pinBar, columns, form, note);
    form.hidden = chooser.hidden = Boolean(options.fixed);
    length.parentElement.hidden = Boolean(options.fixed);
    let cards = {}, held = {};

    function change(next) {
      state = {...state, ...next};
      emit("chat", JSON.stringify(state));
      read();
    }
    const checkpoints = () => [["A", options.a], ...(options.b ? [["B", options.b]] : [])].filter(([, at]) => at && at.step);
    const on = () => state.gauges || (cards.A ? cards.A.default : []);

    function choose(concept, wanted) {
      const gauges = on().filter((name) => name !== concept);
      change({gauges: wanted ? [...gauges, concept] : gauges, colour: wanted || state.colour !== concept ? state.colour : ""});
    }
    function pin(concept, towards, hold) {
      const since = Math.max(state.turns.length - 1, 0);
      const old = state.pins.find((one) => one.concept === concept);
      const gaps = !hold && old && !old.hold && old.towards === towards ? old.gaps + 0.5 : 1;
      if (options.fixed) { change({pins: old && old.towards === towards ? [] : [{concept, towards, gaps: 1, hold: true, site: "", since: 0}]}); return; }
      const others = state.pins.filter((one) => one.concept !== concept);
      change({pins: [...others, {concept, towards, gaps, hold, site: old ? old.site : "", since: old ? old.since : since}]});
    }

    // Two controls of a reading cost a forward pass, so they are read when somebody looks at where a gauge comes from.
    async function readControls(name) {
      const answer = held[name], mine = turn;
      if (!answer || answer.problem || answer.controls) return;
      answer.controls = {};
      try {
        const at = checkpoints().find(([other]) => other === name)[1];
        const read = await fetchJson(`${options.base}/chat/controls`, {...asked(), pins: [], ...place(at)});
        if (mine !== turn) return;
        answer.controls = Object.fromEntries(read.gauges.map((one) => [one.concept, one]));
        draw();
      } catch (error) { if (mine === turn) note.textContent = error.message; }
    }

    function gauge(card, arm, column) {
      const read = arm && arm.gauges.find((one) => one.concept === card.concept);
      const reason = read ? read.reason : card.reason;
      const last = read && read.turns[read.turns.length - 1], before = read && read.turns[read.turns.length - 2];
      const top = last ? last.probabilities.indexOf(Math.max(...last.probabilities)) : -1;
      const changed = before && before.probabilities.indexOf(Math.max(...before.probabilities)) !== top;
      const alarm = state.alarms[card.concept], rings = Boolean(alarm && last && last.state === "read" && last.probabilities[alarm.towards] >= alarm.at);
      const word = reason ? "not readable here" : !last ? "too early" : last.state === "read" ? `${card.classes[top]} ${percent(last.probabilities[top])}` : last.state;
      const rows = card.classes.map((name, i) => {
        const share = last ? last.probabilities[i] : 0, pinned = state.pins.some((one) => one.concept === card.concept && one.towards === i);
        return element("div", {class: "level"}, element("span", {class: "name", title: name}, name),
          element("span", {class: "bar-track", role: "meter", "aria-label": `${card.concept}: ${name}`, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": last ? share.toFixed(3) : null}, element("span", {class: "bar-fill", style: `width: ${(100 * share).toFixed(1)}%`})),
          element("span", {class: "value"}, last ? percent(share) : "–"),
          card.readable && !options.fixed ? element("button", {type: "button", "aria-label": `Raise ${name}`, title: "push each token of the answer by one distance of the class means, by half of one more at each further click", onclick: () => pin(card.concept, i, false)}, "↑") : null,
          card.readable && (!options.fixed || card.control_site) ? element("button", {type: "button", "aria-label": `Hold ${name}`, "aria-pressed": String(pinned), title: "hold each token of the answer at the mean of this class", onclick: () => pin(card.concept, i, true)}, "hold") : null);
      });
      const limit = element("input", {type: "number", min: "0", max: "1", step: "0.05", value: alarm ? alarm.at : "", "aria-label": `Alarm of ${card.concept}`, onchange: () => {
        const at = Number(limit.value), alarms = {...state.alarms};
        if (limit.value === "" || !(at > 0 && at <= 1)) delete alarms[card.concept]; else alarms[card.concept] = {towards: card.classes.length - 1, at};
        change({alarms});
      }});
      const about = element("details", {ontoggle: () => { if (about.open && last) readControls(column); }}, element("summary", {}, "Where it comes from"), reason ? element("p", {class: "notice"}, `${reason}.`) : null, provenance(card, read, held[column] && held[column].controls && held[column].controls[card.concept]),
        element("label", {class: "choice keep"}, element("span", {}, `alarm if ${card.classes[card.classes.length - 1]} reaches`), limit));
      return element("article", {class: "gauge", "data-gauge": card.concept, "data-state": reason ? "unreadable" : !last ? "early" : last.state, "data-changed": changed ? "yes" : null, "data-alarm": rings ? "yes" : null},
        element("h4", {}, card.concept, card.sensitive ? element("span", {class: "tag"}, "sensitive") : null, element("span", {class: "spring"}), rings ? element("span", {class: "tag alarm", role: "alert"}, "alarm") : null, element("span", {class: "word"}, word)),
        card.elsewhere ? element("p", {class: "notice"}, `${card.elsewhere}.`) : null, ...(reason ? [] : rows), read && read.turns.length > 1 ? sparkline(read.turns, card.classes.length - 1, card.classes[card.classes.length - 1]) : null, about);
    }

    function ribbon(arm, index, words) {
      const span = arm.spans[2 * index], read = arm.gauges.find((one) => one.concept === state.colour);
      if (!span || !read || !read.tokens.length || read.tokens[0] === null || span[2] <= span[1]) return [words];
      const size = Math.max(1e-9, ...read.tokens.map(Math.abs).sort((a, b) => a - b).slice(0, Math.ceil(0.95 * read.tokens.length)));
      return arm.tokens.slice(span[1], span[2]).map((text, i) => {
        const score = read.tokens[span[1] + i], share = Math.min(Math.abs(score) / size, 1) * 0.72;
        return element("span", {class: "token", title: `${shown(score)}; an extrapolation away from the probe's own position`, style: `background-color: rgba(${score > 0 ? "230, 126, 34" : "52, 132, 196"}, ${share.toFixed(3)})`}, tokenText(text));
      });
    }
    function compared(nats) {
      if (!nats) return null;
      return nats.words.map((word, i) => {
        const change = nats.b[i] - nats.a[i], share = Math.min(Math.abs(change) / 3, 1) * 0.72;
        return element("span", {class: "token", title: `log p: A ${nats.a[i]}, B ${nats.b[i]} nats`, style: `background-color: rgba(${change < 0 ? "230, 126, 34" : "52, 132, 196"}, ${share.toFixed(3)})`}, tokenText(word));
      });
    }
    function transcript(name, answer, difference) {
      const [plain, ...others] = answer.arms;
      return element("ol", {class: "transcript"}, ...plain.turns.map((one, i) => {
        const unknown = plain.spans[2 * i] ? plain.spans[2 * i][3] : 0;
        const replies = [plain, ...others].map((arm) => {
          const said = arm.turns[i], content = arm === plain && name === "A" ? compared(difference && difference[i]) : null;
          const cost = arm.name === "plain" || said.kl === null ? "" : `KL ${brief(said.kl)} · ${brief(said.surprise)} nats a token, its own answer ${brief(one.surprise)}`;
          return element("div", {class: `reply ${arm.name}`}, others.length ? element("span", {class: "arm"}, ARMS[arm.name]) : null, element("p", {}, ...(content || [said.reply || "(nothing)"])), cost ? element("span", {class: "cost", title: "side effects on this answer: KL of the steered from the unsteered distribution, and its cross-entropy under the unsteered model"}, cost) : null);
        });
        return element("li", {}, element("p", {class: "user"}, ...ribbon(plain, i, one.user)), unknown ? element("span", {class: "cost"}, `${unknown} ${unknown === 1 ? "word is" : "words are"} unknown to the tokenizer`) : null, element("div", {class: "replies"}, ...replies));
      }));
    }

    function draw() {
      const known = cards.A ? cards.A.gauges : [];
      colour.replaceChildren(element("option", {value: ""}, "nothing"), ...on().map((name) => element("option", {value: name}, name)));
      colour.value = on().includes(state.colour) ? state.colour : "";
      length.value = String(state.tokens);
      undo.disabled = !state.turns.length;
      clear.disabled = !state.turns.length && !state.pins.length;
      const open = chooser.open;
      chooser.replaceChildren(element("summary", {}, `Gauges: ${on().length} of ${known.length} on`), element("p", {class: "bar"}, ...known.map((card) => {
        const box = element("input", {type: "checkbox", "data-choose": card.concept, onchange: () => choose(card.concept, box.checked)});
        box.checked = on().includes(card.concept);
        return element("label", {class: "choice keep"}, box, element("b", {}, card.concept), element("span", {}, `${SUBJECTS[card.subject].toLowerCase()}${card.sensitive ? ", sensitive: off until you switch it on" : ""}`));
      })));
      chooser.open = open;
      pinBar.replaceChildren(...state.pins.map((one, i) => {
        const card = known.find((other) => other.concept === one.concept), name = card ? card.classes[one.towards] : one.towards;
        const site = (held.A && held.A.pin_sites && held.A.pin_sites[i]) || one.site;
        return element("span", {class: "pin"}, `${one.concept}: ${one.hold ? `held at ${name}` : `${one.gaps} gaps towards ${name}`}${site ? `, ${site}` : ""}, from turn ${one.since + 1} `,
          element("button", {type: "button", "aria-label": `Remove the pin of ${one.concept}`, onclick: () => change({pins: state.pins.filter((other) => other !== one)})}, "×"));
      }));
      pinBar.hidden = !state.pins.length;
      const focused = root.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      const opened = new Set([...columns.querySelectorAll("article details[open]")].map((one) => `${one.closest("[data-column]").dataset.column}/${one.closest("article").dataset.gauge}`));
      columns.replaceChildren(...checkpoints().map(([name, at]) => {
        const answer = held[name], problem = answer && answer.problem, arm = answer && !problem ? answer.arms[0] : null;
        const groups = Object.entries(SUBJECTS).map(([subject, title]) => {
          const own = (cards[name] ? cards[name].gauges : []).filter((card) => card.subject === subject && on().includes(card.concept));
          return own.length ? element("section", {}, element("h3", {}, title), ...own.map((card) => gauge(card, arm, name))) : null;
        });
        const wrong = problem || (cards[name] && cards[name].problem);
        return element("div", {class: "chat-column", "data-column": name, "data-held": answer ? (problem ? "problem" : String(answer.arms[0].turns.length)) : "none"},
          element("h3", {class: "which"}, `${name} · ${at.label || at.step}`), wrong ? element("p", {class: "problem", role: "alert"}, wrong) : null,
          element("div", {class: "gauges"}, ...groups), arm ? transcript(name, answer, held.difference) : element("p", {class: "notice"}, state.turns.length && !wrong ? "Answering …" : ""));
      }));
      for (const one of columns.querySelectorAll("article details")) one.open = opened.has(`${one.closest("[data-column]").dataset.column}/${one.closest("article").dataset.gauge}`);
      if (focused && !root.contains(document.activeElement)) { const again = [...root.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === focused); if (again) again.focus(); }
      const compare = options.b ? " Words of A: orange where B gives them less, blue where more." : "";
      note.textContent = held.A && held.A.template ? `In ${held.A.template}. Gauges are read at the end of the user's turn, in the conversation as it is.${compare}` : "";
    }

    const asked = () => ({turns: state.turns, gauges: on(), pins: state.pins.map(({concept, towards, gaps, hold, site, since}) => ({concept, towards, gaps, hold, site: site || "", since: since || 0})), tokens: state.tokens});
    async function read() {
      const mine = ++turn;
      held = {};
      draw();
      for (const [name, at] of checkpoints()) {
        try {
          cards[name] = await fetchJson(`${options.base}/gauges?stage=${encodeURIComponent(at.stage)}&step=${encodeURIComponent(at.step)}&version=${options.version}`);
        } catch (error) { cards[name] = {gauges: [], default: [], problem: error.message}; }
        if (mine !== turn) return;
      }
      draw();
      if (!state.turns.length) { root.dataset.read = "cards"; return; }
      delete root.dataset.read;
      for (const [name, at] of checkpoints()) {
        try {
          const answer = await fetchJson(`${options.base}/chat`, {...asked(), ...place(at)});
          if (mine !== turn) return;
          held[name] = answer;
        } catch (error) {
          if (mine !== turn) return;
          held[name] = {problem: error.message};
        }
        draw();
      }
      if (options.b && held.A && held.B && !held.A.problem && !held.B.problem) {
        try {
          held.difference = (await fetchJson(`${options.base}/chat/difference`, {...asked(), pins: [], ...place(options.a), other_stage: options.b.stage, other_step: options.b.step})).turns;
        } catch (error) { delete held.difference; } // other tokenizers: shown, not compared word by word
        if (mine !== turn) return;
        draw();
      }
      root.dataset.read = "chat";
    }
    read();
    return {
      update(next) {
        const key = (one) => JSON.stringify([one.base, one.version, one.a, one.b]);
        const echoed = next.state === JSON.stringify(state), same = key(next) === key(options);
        options = next;
        if (echoed && same) return; // the answer of the server to our own change
        if (!echoed) state = parsed(next.state);
        read();
      },
      destroy() { turn += 1; },
    };
  }

  function bench(root, options, emit) {
    let turn = 0, cards = [];
    const given = (() => { try { return JSON.parse(options.state || "{}") || {}; } catch { return {}; } })();
    let state = {text: String(given.text || ""), concept: String(given.concept || ""), towards: Number.isInteger(given.towards) ? given.towards : 1, site: String(given.site || ""), gaps: String(given.gaps || "-2, -1, -0.5, 0, 0.5, 1, 2"), tokens: Number.isInteger(given.tokens) ? given.tokens : 24};
    const field = (label, made) => element("label", {class: "choice keep"}, element("span", {}, label), made);
    const area = element("textarea", {rows: "2", maxlength: "4000", "aria-label": "Turn", placeholder: "A turn of the user, which is answered under each push."});
    const concept = element("select", {onchange: () => { state.concept = concept.value; fill(); }}), towards = element("select", {}), site = element("input", {type: "text", size: "8", placeholder: "resid.3"}), gaps = element("input", {type: "text", size: "24"});
    const said = element("p", {class: "notice", role: "status"}), table = element("div", {class: "scroll bench", tabindex: "0"});
    const save = element("a", {class: "save", download: ""}, "Save the vector");
    const form = element("form", {class: "bench-form", onsubmit: (event) => {
      event.preventDefault();
      state = {...state, text: area.value, concept: concept.value, towards: Number(towards.value), site: site.value.trim(), gaps: gaps.value};
      emit("bench", JSON.stringify(state));
      run();
    }}, area, field("concept", concept), field("towards", towards), field("site", site), field("gaps", gaps), element("button", {type: "submit"}, "Try"));
    root.replaceChildren(form, said, table, save);
    area.value = state.text;
    gaps.value = state.gaps;
    site.value = state.site;

    function fill() {
      const readable = cards.filter((card) => card.readable);
      concept.replaceChildren(...readable.map((card) => element("option", {value: card.concept}, card.concept)));
      if (!readable.some((card) => card.concept === state.concept)) state.concept = readable.length ? readable[0].concept : "";
      concept.value = state.concept;
      const card = readable.find((one) => one.concept === state.concept);
      towards.replaceChildren(...(card ? card.classes : []).map((name, i) => element("option", {value: String(i)}, name)));
      towards.value = String(card && state.towards < card.classes.length ? state.towards : 0);
      if (card) site.placeholder = card.control_site;
      save.hidden = !card;
      if (card) save.href = `${options.base}/vector?concept=${encodeURIComponent(card.concept)}&stage=${encodeURIComponent(options.a.stage)}&step=${encodeURIComponent(options.a.step)}&towards=${towards.value}&site=${encodeURIComponent(site.value.trim())}`;
      said.textContent = card ? `One gap is the distance of the class means at ${site.value.trim() || card.control_site} of ${options.a.label}. ${card.control ? card.control[0].toUpperCase() + card.control.slice(1) : "The vector was not evaluated on held-out questions: run `ontogeny evaluate`."}` : "No concept is readable at this checkpoint.";
    }
    async function load() {
      const mine = ++turn;
      if (!options.a || !options.a.step) { said.textContent = "This run has no checkpoint yet."; return; }
      try {
        cards = (await fetchJson(`${options.base}/gauges?stage=${encodeURIComponent(options.a.stage)}&step=${encodeURIComponent(options.a.step)}&version=${options.version}`)).gauges;
        if (mine !== turn) return;
        fill();
        if (state.text.trim()) run();
      } catch (error) { if (mine === turn) { form.hidden = true; save.hidden = true; said.replaceChildren(element("span", {class: "problem", role: "alert"}, error.message)); } }
    }
    async function run() {
      const mine = ++turn;
      fill();
      const lengths = state.gaps.split(",").map((text) => text.trim()).filter(Boolean).map(Number);
      table.replaceChildren(element("p", {class: "notice"}, "Answering …"));
      try {
        if (lengths.some((one) => !Number.isFinite(one))) throw new Error(`gaps must be numbers separated by commas, got ${state.gaps}: write -1, 0, 1.`);
        const answer = await fetchJson(`${options.base}/bench`, {text: state.text, concept: state.concept, towards: state.towards, site: state.site, gaps: lengths, tokens: state.tokens, ...place(options.a)});
        if (mine !== turn) return;
        const head = ["push, gaps", "answer", "KL", "nats a token", "random twin", "KL"].map((name) => element("th", {scope: "col"}, name));
        const lines = answer.rows.map((row) => element("tr", {}, element("th", {scope: "row"}, row.gaps === null ? "held" : String(row.gaps)),
          element("td", {class: "long"}, row.steered.reply === row.plain.reply ? row.steered.reply : element("b", {}, row.steered.reply || "(nothing)")), element("td", {class: "number"}, shown(row.steered.kl)), element("td", {class: "number"}, shown(row.steered.surprise)),
          element("td", {class: "long"}, row.random.reply === row.plain.reply ? row.random.reply : element("b", {}, row.random.reply || "(nothing)")), element("td", {class: "number"}, shown(row.random.kl))));
        table.replaceChildren(element("table", {"aria-label": `Answers under pushes at ${answer.site}; bold where they differ from the unsteered one`}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines)));
        root.dataset.read = String(answer.rows.length);
      } catch (error) { if (mine === turn) { table.replaceChildren(element("p", {class: "problem", role: "alert"}, error.message)); root.dataset.read = "problem"; } }
    }
    site.addEventListener("input", fill);
    towards.addEventListener("change", () => { state.towards = Number(towards.value); fill(); });
    load();
    return {update(next) {
      const old = options;
      options = next;
      if (JSON.stringify([next.a, next.base, next.version]) !== JSON.stringify([old.a, old.base, old.version])) load();
    }, destroy() { turn += 1; }};
  }

  Object.assign(window.ontogeny, {chat, bench});
})();
