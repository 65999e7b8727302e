"use strict";
// Attention: queries and keys of every head in one plane, one head with its attention, and the same for patches of images.
(() => {
  const {element, drawn, fetchJson, shown} = window.ontogeny;
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [230, 210, 40]];
  const CATEGORIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B6914", "#7F7F7F"];
  const HUES = {grey: "#8a939c", red: "#D55E00", yellow: "#E69F00", green: "#009E73", cyan: "#56B4E9", blue: "#0072B2", magenta: "#CC79A7"};
  const NAMES = {distance_correlation: "q·k with distance", previous_token: "to the previous token", first_token: "to the first token", induction: "to the token after an earlier equal one", position_r2: "queries by position, R²"};
  const OF_IMAGES = {...NAMES, previous_token: "to the previous patch", first_token: "to the class token"};
  const COLOURS = [["type", "query or key"], ["position", "position"], ["mod5", "position mod 5"], ["norm", "norm"], ["count", "occurrences of its token"], ["text", "text"]];

  function along(share) {
    const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), i = Math.min(Math.floor(at), VIRIDIS.length - 2);
    return `rgb(${VIRIDIS[i].map((c, k) => Math.round(c + (at - i) * (VIRIDIS[i + 1][k] - c))).join(",")})`;
  }
  const select = (label, values, on) => {
    const made = element("select", {onchange: () => on(made.value)}, ...values.map(([value, text]) => element("option", {value}, text)));
    return [made, element("label", {class: "choice keep"}, element("span", {}, label), made)];
  };

  // Where each token stands: the number of its text or image, and its place in it.
  function placesOf(counts) {
    return counts.flatMap((count, item) => Array.from({length: count}, (_, position) => ({item, position, count})));
  }

  function attention(place, options, emit) {
    let turn = 0, found = null, places = [], counted = [], head = [0, 0], colour = "type", hideFirst = false, projection = "pca", scale = "norm", maps = {}, item = 0, picked = null;
    const area = element("textarea", {rows: "3", maxlength: "4000", "aria-label": "Text", placeholder: "Type a text of up to 128 tokens; after an empty line another one begins, in the same space."});
    area.value = options.text;
    const form = element("form", {onsubmit: (event) => { event.preventDefault(); emit("text", area.value); if (area.value === options.text) read(); }}, area, element("button", {type: "submit"}, "Read"));
    const said = element("p", {class: "notice", role: "status"}), grid = element("div", {class: "heads"}), one = element("div", {class: "one-head"});
    const [colours, colourChoice] = select("colour", COLOURS, (value) => { colour = value; draw(); });
    const [projections, projectionChoice] = select("projection", [["pca", "two principal components"], ["tsne", "t-SNE, this head"]], (value) => { projection = value; draw(); });
    const [, scaleChoice] = select("scale", [["norm", "one mean norm"], ["correlation", "best correlation"]], (value) => { scale = value; read(); });
    const [items, itemChoice] = select("text", [], (value) => { item = Number(value); picked = null; draw(); });
    const first = element("input", {type: "checkbox", onchange: () => { hideFirst = first.checked; draw(); }});
    const search = element("input", {type: "search", size: "12", "aria-label": "Search tokens", placeholder: "part of a token", oninput: () => draw()});
    const hits = element("span", {class: "notice", role: "status"});
    const controls = element("p", {class: "bar"}, colourChoice, projectionChoice, scaleChoice, itemChoice, element("label", {class: "choice keep"}, element("span", {}, "search"), search, hits), element("label", {class: "choice keep"}, first, element("span", {}, "hide the first token")));
    form.hidden = projectionChoice.hidden = scaleChoice.hidden = Boolean(options.fixed);
    place.replaceChildren(form, said, controls, element("div", {class: "attention"}, grid, one));
    controls.hidden = true;

    const total = () => found.tokens.length;
    const matches = (point) => !search.value || found.tokens[point % total()].toLowerCase().includes(search.value.toLowerCase());
    const isHidden = (token) => hideFirst && places[token].position === 0;

    function ink(l, h, point) {
      const token = point % total(), at = places[token];
      if (colour === "position") return along(at.position / Math.max(at.count - 1, 1));
      if (colour === "mod5") return CATEGORIES[at.position % 5];
      if (colour === "text") return CATEGORIES[at.item % CATEGORIES.length];
      if (colour === "count") return along((counted[token] - 1) / Math.max(Math.max(...counted) - 1, 1));
      if (colour === "norm") { const norms = found.norms[l][h], most = Math.max(...norms), least = Math.min(...norms); return along((norms[point] - least) / Math.max(most - least, 1e-9)); }
      const labels = (found.labels || {})[colour];
      if (labels) {
        const value = labels[token];
        return value === null ? "#8a939c" : typeof value === "number" ? along(value / Math.max(1, ...labels)) : HUES[value] || CATEGORIES[0];
      }
      return point < total() ? "#0072B2" : "#D55E00";
    }
    function placed(l, h, size, points = found.planes[l][h]) {
      const used = points.map((_, i) => i).filter((i) => !isHidden(i % total()));
      const most = used.reduce((large, i) => Math.max(large, Math.abs(points[i][0]), Math.abs(points[i][1])), 1e-9);
      return [used, (i) => points[i].map((c, k) => size / 2 + (k ? -1 : 1) * (c / most) * (size / 2 - 7))];
    }
    async function readMap(l, h) {
      const mine = turn, key = `${l}.${h}`;
      maps[key] = "asked";
      said.textContent = "t-SNE …";
      try {
        const answer = await fetchJson(`${options.src.split("?")[0]}/map`, {text: options.text, stage: options.stage, step: options.step, layer: l + 1, head: h, scale});
        if (mine !== turn) return;
        maps[key] = answer.points;
        said.textContent = "";
      } catch (error) { if (mine !== turn) return; maps[key] = null; said.textContent = error.message; }
      draw();
    }
    function mini(l, h) {
      const size = 66, canvas = element("canvas", {width: size * 2, height: size * 2, style: `width:${size}px;height:${size}px`});
      const pen = canvas.getContext("2d"), [used, at] = placed(l, h, size), dot = total() > 200 ? 0.9 : 1.3;
      pen.scale(2, 2);
      for (const i of used) {
        const [x, y] = at(i), strong = (search.value && matches(i)) || i % total() === picked, half = strong ? 2.2 : dot;
        pen.globalAlpha = matches(i) ? 1 : 0.15;
        pen.fillStyle = ink(l, h, i);
        pen.fillRect(x - half, y - half, 2 * half, 2 * half);
      }
      const label = `head.${l + 1}.${h}`;
      return element("button", {type: "button", title: label, "aria-label": label, "aria-pressed": String(l === head[0] && h === head[1]), onclick: () => { head = [l, h]; draw(); }}, canvas);
    }
    function pick(token) {
      picked = picked === token ? null : token;
      item = places[token].item;
      draw();
    }
    function cloudOf(l, h) {
      const size = 380, map = projection === "tsne" ? maps[`${l}.${h}`] : null;
      if (projection === "tsne" && map === undefined) readMap(l, h);
      const [used, at] = placed(l, h, size, Array.isArray(map) ? map : found.planes[l][h]), small = total() > 200;
      const cloud = drawn("svg", {viewBox: `0 0 ${size} ${size}`, role: "img", "data-projection": Array.isArray(map) ? "tsne" : "pca", "aria-label": `Queries and keys of head.${l + 1}.${h}, ${Array.isArray(map) ? "t-SNE" : "two principal components"}`});
      for (const i of used) {
        const token = i % total(), query = i < total(), [x, y] = at(i), chosen = token === picked;
        const look = {fill: ink(l, h, i), "fill-opacity": matches(i) ? 0.85 : 0.12, class: chosen ? "point chosen" : "point"};
        const half = chosen ? 6 : small ? 2.6 : 4;
        const mark = query ? drawn("circle", {cx: x, cy: y, r: half + 0.5, ...look}) : drawn("rect", {x: x - half, y: y - half, width: 2 * half, height: 2 * half, transform: `rotate(45 ${x} ${y})`, ...look});
        mark.append(drawn("title", {}, `${query ? "query" : "key"} of “${found.tokens[token]}”, position ${places[token].position}${found.counts.length > 1 ? `, ${found.images ? "image" : "text"} ${places[token].item + 1}` : ""}`));
        mark.addEventListener("click", () => pick(token));
        cloud.append(mark);
      }
      return cloud;
    }
    function start() { return found.counts.slice(0, item).reduce((sum, count) => sum + count, 0); }
    function linesOf(l, h) {
      const begin = start(), count = found.counts[item], row = 17;
      const lines = drawn("svg", {viewBox: `0 0 380 ${count * row + 6}`, role: "img", "aria-label": `Attention of head.${l + 1}.${h} from each token on the left to tokens on the right`});
      for (const [q, k, weight] of found.links[l][h]) {
        if (places[q].item !== item || isHidden(k)) continue;
        const faint = picked !== null && q !== picked && k !== picked;
        const line = drawn("line", {x1: 150, x2: 230, y1: (q - begin) * row + 12, y2: (k - begin) * row + 12, class: "attended", "stroke-opacity": (faint ? 0.12 : 1) * weight, "stroke-width": 0.6 + 2.4 * weight});
        line.append(drawn("title", {}, `${found.tokens[q]} → ${found.tokens[k]}: ${weight}`));
        lines.append(line);
      }
      for (let i = 0; i < count; i++) {
        const token = begin + i, text = found.tokens[token].replaceAll("\n", "⏎").trim() || "␣";
        const strong = (search.value && matches(token)) || token === picked;
        for (const [x, anchor] of [[145, "end"], [235, "start"]]) {
          const word = drawn("text", {x, y: i * row + 16, "text-anchor": anchor, class: strong ? "word match" : "word"}, text.slice(0, 18));
          word.addEventListener("click", () => pick(token));
          lines.append(word);
        }
      }
      return lines;
    }
    // An image twice: as it is, with its patches to choose from, and under the attention of the chosen patch.
    function imageOf(l, h) {
      const {rows, columns, side, pixels} = found.images[item], begin = start(), bytes = atob(pixels), cell = 180;
      const canvas = element("canvas", {width: side[1], height: side[0]}), pen = canvas.getContext("2d"), data = pen.createImageData(side[1], side[0]);
      for (let i = 0; i < side[0] * side[1]; i++) { for (let c = 0; c < 3; c++) data.data[4 * i + c] = bytes.charCodeAt(3 * i + c); data.data[4 * i + 3] = 255; }
      pen.putImageData(data, 0, 0);
      const address = canvas.toDataURL(), query = picked !== null && places[picked].item === item ? picked : begin + 1;
      const links = found.links[l][h].filter(([q, k]) => q === query && !isHidden(k)), most = Math.max(1e-9, ...links.map((link) => link[2]));
      const box = (token) => { const at = places[token].position - 1; return at < 0 ? null : {x: (at % columns) * (cell / columns), y: Math.floor(at / columns) * (cell / rows), width: cell / columns, height: cell / rows}; };
      const picture = drawn("svg", {viewBox: "0 0 380 200", role: "img", class: "patches", "aria-label": `Attention of head.${l + 1}.${h} from ${found.tokens[query]}`});
      for (const left of [5, 195]) {
        const group = drawn("g", {transform: `translate(${left},5)`});
        group.append(drawn("image", {href: address, width: cell, height: cell, preserveAspectRatio: "none", opacity: left > 5 ? 0.35 : 1}));
        if (left > 5) for (const [, k, weight] of links) { const at = box(k); if (at) { const heat = drawn("rect", {...at, fill: "#D55E00", "fill-opacity": 0.85 * weight / most}); heat.append(drawn("title", {}, `${found.tokens[k]}: ${weight}`)); group.append(heat); } }
        for (let i = 1; i < found.counts[item]; i++) {
          const token = begin + i, cellOf = drawn("rect", {...box(token), class: token === query ? "patch chosen" : "patch"});
          cellOf.append(drawn("title", {}, found.tokens[token]));
          cellOf.addEventListener("click", () => pick(token));
          group.append(cellOf);
        }
        picture.append(group);
      }
      const nothing = links.find(([, k]) => places[k].position === 0);
      return element("div", {}, picture, element("p", {class: "notice"}, `From ${found.tokens[query]} (framed; click another patch) to the coloured ones${nothing ? `, and ${nothing[2]} to the class token` : ""}.`));
    }
    function draw() {
      if (!found) return;
      controls.hidden = false;
      head = [Math.min(head[0], found.layers - 1), Math.min(head[1], found.heads - 1)];
      const focused = grid.contains(document.activeElement);
      grid.style.gridTemplateColumns = `auto repeat(${found.heads}, max-content)`;
      grid.replaceChildren(...Array.from({length: found.layers}, (_, k) => found.layers - 1 - k).flatMap((l) => [element("span", {class: "notice"}, `layer ${l + 1}`), ...Array.from({length: found.heads}, (_, h) => mini(l, h))]));
      if (focused) grid.querySelector("[aria-pressed=true]").focus();
      items.value = String(item);
      hits.textContent = search.value ? `${found.tokens.filter((_, i) => matches(i)).length} of ${total()}` : "";
      const [l, h] = head;
      const names = found.images ? OF_IMAGES : NAMES;
      const numbers = found.score_names.map((name, i) => (found.images && name === "induction" ? null : element("tr", {}, element("th", {scope: "row"}, names[name] || name), element("td", {class: "number"}, shown(found.scores[l][h][i])))));
      one.replaceChildren(element("h3", {}, `head.${l + 1}.${h} at ${options.label}`), element("p", {class: "notice"}, "● query   ◆ key: near ones attend to each other in a head whose q·k falls with their distance. Click one to see it in all heads."), 
        element("div", {}, cloudOf(l, h), element("table", {class: "numbers"}, element("tbody", {}, ...numbers.filter(Boolean)))), found.images ? imageOf(l, h) : element("div", {class: "scroll"}, linesOf(l, h)));
      place.dataset.read = `${options.stage} ${options.step}`;
    }
    function offer() {
      const of = found.images ? "image" : "text";
      const labels = Object.keys(found.labels || {}).map((name) => [name, name]);
      const offered = [...COLOURS.filter(([name]) => (name !== "text" || found.counts.length > 1) && !(found.images && ["mod5", "count"].includes(name))), ...labels];
      if (!offered.some(([name]) => name === colour)) colour = "type";
      colours.replaceChildren(...offered.map(([value, text]) => element("option", {value}, value === "text" ? of : text)));
      colours.value = colour;
      item = Math.min(item, found.counts.length - 1);
      itemChoice.hidden = found.counts.length < 2;
      itemChoice.firstChild.textContent = of;
      items.replaceChildren(...found.counts.map((_, i) => element("option", {value: String(i)}, String(i + 1))));
    }
    async function read() {
      const mine = ++turn;
      if (!options.text.trim()) { said.textContent = "Queries and keys of every head after rotation, moved and scaled into one space, which leaves the attention as it is."; return; }
      said.textContent = found ? "" : "Reading …";
      try {
        const answer = await fetchJson(options.src, {text: options.text, stage: options.stage, step: options.step, scale});
        if (mine !== turn) return;
        found = answer;
        places = placesOf(found.counts);
        const times = new Map();
        for (const token of found.tokens) times.set(token, (times.get(token) || 0) + 1);
        counted = found.tokens.map((token) => times.get(token));
        if (picked !== null && picked >= found.tokens.length) picked = null;
        maps = {};
        said.textContent = "";
        offer();
        draw();
      } catch (error) {
        if (mine !== turn) return;
        found = null;
        grid.replaceChildren();
        one.replaceChildren(element("p", {class: "problem", role: "alert"}, error.message));
        said.textContent = "";
        controls.hidden = true;
      }
    }
    read();
    return {update(next) {
      const same = JSON.stringify(next) === JSON.stringify(options);
      if (next.text !== options.text) { area.value = next.text; item = 0; picked = null; }
      options = next;
      if (!same) read();
    }, destroy() { turn += 1; }};
  }

  Object.assign(window.ontogeny, {attention});
})();
