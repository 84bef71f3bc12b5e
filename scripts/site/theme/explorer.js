// The explorer of claims and runs. No library, no request: its data are scripts beside it (see tables.py), so it works
// from a file. What is chosen stands in the address, after #, and a link can choose it: #figure=fig5&verdict=reproduced,
// #view=runs&figure=fig5&metric=rank.
"use strict";
(() => {
  const data = window.syre.index;
  const at = (id) => document.getElementById(id);
  const SHOWN = 40; // claims at a time: all of them at once would make a phone wait
  const CLASS = Object.fromEntries([...document.querySelectorAll("[name=verdict]")] // verdict -> what the style sheet colours
    .map((box) => [box.value, box.nextElementSibling.className.split(" ")[1]]));
  const NAME = "regularizer.name", SIGMA = "regularizer.sigma", GAMMA = "regularizer.weight_decay", ARM = "arm";
  const WORDS = {
    [NAME]: "method", [SIGMA]: "σ (regularizer.sigma)", [GAMMA]: "γ (weight decay)", [ARM]: "method and σ", seed: "seed",
  };
  const SPARE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#332288", "#777777", "#7FBC41", "#000000"];

  // ---- elements -----------------------------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const one = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) one.setAttribute(name, value === true ? "" : value);
    }
    one.append(...children.filter((child) => child !== null));
    return one;
  }
  const option = (value, words) => make("option", { value }, words);
  const word = (setting) => WORDS[setting] || setting;
  function tell(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(3).replace(/\.?0+e/, "e")
      : String(Number(value.toPrecision(5)));
  }
  function choose(select, options, value) {
    select.replaceChildren(...options.map(([key, words]) => option(key, words)));
    const wanted = String(value ?? "");
    select.value = options.some(([key]) => String(key) === wanted) ? wanted : String(options[0][0]);
  }

  // ---- what is chosen, in the address -------------------------------------------------------------------------------

  let chosen = new URLSearchParams();
  function say(next) {
    chosen = next;
    const text = String(next);
    if (location.hash.slice(1) !== text) history.replaceState(null, "", `#${text}`);
  }

  // ---- claims -------------------------------------------------------------------------------------------------------

  const filters = at("claim-filters");
  const by = (a, b) => (a === "best" ? -1 : b === "best" ? 1 : a - b);
  const named = (key) => [...new Set(data.claims.flatMap((claim) => claim[key]))].sort(by).map((one) => [one, one]);
  let whole = false; // whether all claims that match are shown

  function startClaims() {
    choose(filters.elements.figure, [["", "all"], ...Object.entries(data.figures)]);
    choose(filters.elements.sigma, [["", "any"], ...named("sigmas")]);
    choose(filters.elements.gamma, [["", "any"], ...named("gammas")]);
    filters.addEventListener("input", () => { whole = false; fromFilters(); });
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(() => { whole = false; fromFilters(); }));
    at("more").addEventListener("click", () => { whole = true; showClaims(); });
  }
  function toFilters() {
    for (const name of ["text", "figure", "sigma", "gamma"]) filters.elements[name].value = chosen.get(name) || "";
    const verdicts = chosen.getAll("verdict");
    for (const box of filters.querySelectorAll("[name=verdict]")) box.checked = verdicts.includes(box.value);
  }
  function fromFilters() {
    const next = new URLSearchParams();
    for (const [name, value] of new FormData(filters)) if (value) next.append(name, value);
    say(next);
    showClaims();
  }
  function matches(claim) {
    const verdicts = chosen.getAll("verdict"), text = `${claim.id} ${claim.text}`.toLowerCase();
    return (!verdicts.length || verdicts.includes(claim.verdict))
      && (!chosen.get("figure") || claim.figure === chosen.get("figure"))
      && (!chosen.get("sigma") || claim.sigmas.includes(chosen.get("sigma")))
      && (!chosen.get("gamma") || claim.gammas.includes(chosen.get("gamma")))
      && (chosen.get("text") || "").toLowerCase().split(/\s+/).every((part) => text.includes(part));
  }
  function showClaims() {
    const found = data.claims.filter(matches);
    const count = Object.keys(CLASS).map((verdict) => [found.filter((claim) => claim.verdict === verdict).length, verdict]);
    at("claim-count").textContent = `${found.length} of ${data.claims.length} claims`
      + (found.length ? `: ${count.filter(([n]) => n).map(([n, verdict]) => `${n} ${verdict}`).join(", ")}` : "");
    const rows = (whole ? found : found.slice(0, SHOWN)).map(claimRow);
    at("claim-list").replaceChildren(table("claims", ["figure", "claim", "verdict", "effect [interval]", "seeds"], rows));
    at("more").hidden = rows.length === found.length;
    at("more").textContent = `Show all ${found.length}`;
  }
  function claimRow(claim) {
    const paper = claim.paper ? make("span", { class: "paper" }, ` Paper: ${claim.paper}`) : null;
    return make("tr", {},
      make("td", {}, make("a", { href: `figures/${claim.figure}.html` }, data.figures[claim.figure] || claim.figure)),
      make("td", {}, make("strong", {}, claim.id), ` ${claim.text} (${claim.source})`, paper),
      make("td", {}, make("span", { class: `verdict ${CLASS[claim.verdict]}` }, claim.verdict)),
      make("td", { class: "number bar" }, bar(claim), claim.shown),
      make("td", { class: "number" }, claim.n));
  }
  function table(kind, header, rows) {
    return make("table", { class: kind },
      make("thead", {}, make("tr", {}, ...header.map((one) => make("th", { scope: "col" }, one)))),
      make("tbody", {}, ...rows));
  }
  // The interval beside 0 (thin) and what it is held against (thick): where it must lie is to be seen at a glance.
  function bar(claim) {
    if (!claim.effect || !claim.low) return "";
    const limits = (claim.against.match(/-?\d[\d.e-]*/g) || []).map(Number).filter(Number.isFinite);
    const margins = claim.against.includes("±") ? limits.slice(-1).flatMap((one) => [-one, one]) : limits.slice(-1);
    const numbers = [claim.low, claim.high, claim.effect].map(Number);
    const all = [...numbers, ...margins, 0], least = Math.min(...all), most = Math.max(...all);
    const x = (value) => 4 + (112 * (value - least)) / (most - least || 1);
    const line = (value, kind) => make("svg:line", { x1: x(value), x2: x(value), y1: 2, y2: 18, class: kind });
    return make("svg:svg", { viewBox: "0 0 120 20", width: 120, height: 20, "aria-hidden": "true", class: CLASS[claim.verdict] },
      line(0, "zero"), ...margins.map((one) => line(one, "margin")),
      make("svg:line", { x1: x(numbers[0]), x2: x(numbers[1]), y1: 10, y2: 10, class: "interval" }),
      make("svg:circle", { cx: x(numbers[2]), cy: 10, r: 3.5 }));
  }

  // ---- runs: points -------------------------------------------------------------------------------------------------

  const axes = at("run-filters"), settings = at("settings");
  let sweep = null; // the runs that are shown

  function startRuns() {
    at("narrowed").open = innerWidth > 700;
    choose(axes.elements.figure, Object.entries(data.sweeps), "fig5");
    for (const form of [axes, settings]) {
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("input", ({ target }) => {
        // what is now an axis, or tells lines apart, is to be seen with all its values
        const free = form === axes && ["x", "group"].includes(target.name) && settings.elements[target.value];
        if (free) free.value = "";
        fromAxes(form === axes && target.name === "figure");
      });
    }
    let wide = 0;
    new ResizeObserver(([box]) => {
      if (Math.abs(box.contentRect.width - wide) > 8 && sweep) { wide = box.contentRect.width; draw(); }
    }).observe(at("chart"));
  }
  function load(name) {
    const key = `runs/${name}`;
    if (window.syre[key]) return Promise.resolve(window.syre[key]);
    return new Promise((done, failed) => document.head.append(make("script", {
      src: `data/${name}.js`, onload: () => done(window.syre[key]), onerror: () => failed(new Error(`data/${name}.js`)),
    })));
  }
  async function toAxes() {
    const name = data.sweeps[chosen.get("figure")] ? chosen.get("figure") : axes.elements.figure.value;
    axes.elements.figure.value = name;
    at("run-count").textContent = "Loading ...";
    try {
      const loaded = await load(name);
      if (axes.elements.figure.value !== name) return; // another one was chosen meanwhile
      sweep = loaded;
    } catch (error) {
      at("run-count").textContent = `${error.message} is missing: build the site again.`;
      return;
    }
    const differ = Object.keys(sweep.settings), usual = usualAxes();
    choose(axes.elements.metric, Object.keys(sweep.metrics).map((one) => [one, one]), chosen.get("metric") || usual.metric);
    choose(axes.elements.x, [...differ, "seed"].map((one) => [one, word(one)]), chosen.get("x") || usual.x);
    const groups = sweep.settings[NAME] ? [ARM, ...differ] : differ;
    choose(axes.elements.group, [...groups.map((one) => [one, word(one)]), ["", "nothing"]], chosen.get("group") ?? usual.group);
    axes.elements.scale.value = chosen.get("scale") === "log" ? "log" : "linear";
    settings.replaceChildren(...differ.map((one) => {
      const select = make("select", { name: one });
      const values = sweep.settings[one].values.map((value, place) => [place, tell(value)]).filter((_, place) => sweep.settings[one].values[place] !== null);
      const said = chosen.get(one), place = sweep.settings[one].values.findIndex((value) => String(value) === said);
      choose(select, [["", "any"], ...values], said === null ? usual.only[one] ?? "" : place);
      return make("label", {}, `${word(one)} `, select);
    }));
    draw();
  }
  function fromAxes(anew) {
    const next = new URLSearchParams({ view: "runs", figure: axes.elements.figure.value });
    if (!anew) {
      for (const name of ["metric", "x", "group", "scale"]) next.set(name, axes.elements[name].value);
      for (const select of settings.querySelectorAll("select")) {
        next.set(select.name, select.value === "" ? "any" : String(sweep.settings[select.name].values[select.value]));
      }
    }
    say(next);
    if (anew) toAxes(); else draw();
  }
  // What is shown at first: the axis with the most values, a line for each method and sigma, and of all else the value
  // that most runs have.
  function usualAxes() {
    const numeric = Object.entries(sweep.settings).filter(([, one]) => one.values.every((v) => v === null || typeof v === "number"));
    const many = numeric.filter(([, one]) => one.values.length > 3).map(([name]) => name);
    const first = many.find((name) => /^(data|model)\./.test(name) && spread(name) > 0.6)
      || [GAMMA, SIGMA].find((name) => many.includes(name)) || many[0];
    const x = first || Object.keys(sweep.settings)[0] || "seed";
    const group = sweep.settings[NAME] && x !== NAME ? ARM : Object.keys(sweep.settings).find((name) => name !== x) || "";
    // one after the other, names first, each among the runs that the earlier ones leave: some are always left
    const names = (name) => (name.endsWith(".name") ? 0 : 1);
    let runs = sweep.ids.map((_, run) => run);
    const only = {};
    for (const name of Object.keys(sweep.settings).sort((a, b) => names(a) - names(b))) {
      if ([x, group, NAME, SIGMA].includes(name)) continue;
      const one = sweep.settings[name], place = name === GAMMA && group === ARM ? widest(name, x, runs) : commonest(one, runs);
      if (place === null) continue;
      only[name] = place;
      runs = runs.filter((run) => one.of[run] === place || one.values[one.of[run]] === null);
    }
    const metric = Object.keys(sweep.metrics).find((each) => runs.some((run) => sweep.metrics[each][run] !== null));
    return { x, group, only, metric };
  }
  function spread(name) { // the share of runs that do not have the commonest value of a setting
    const one = sweep.settings[name], place = commonest(one, sweep.ids.map((_, run) => run));
    return one.of.filter((each) => each !== place && one.values[each] !== null).length / one.of.length;
  }
  function commonest(one, runs) {
    const count = new Map();
    for (const run of runs) if (one.values[one.of[run]] !== null) count.set(one.of[run], (count.get(one.of[run]) || 0) + 1);
    return [...count].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
  }
  function widest(name, x, runs) { // the value of a setting at which runs have the most values of x, and then the most runs
    const one = sweep.settings[name], other = sweep.settings[x], seen = new Map();
    runs.forEach((run) => {
      const place = one.of[run];
      if (one.values[place] === null || one.values[place] === 0) return;
      const [values, runs] = seen.get(place) || [new Set(), 0];
      seen.set(place, [values.add(other ? other.of[run] : 0), runs + 1]);
    });
    return [...seen].sort((a, b) => b[1][0].size - a[1][0].size || b[1][1] - a[1][1])[0]?.[0] ?? null;
  }
  const valueOf = (setting, run) => setting === "seed" ? sweep.seeds[run]
    : sweep.settings[setting] ? sweep.settings[setting].values[sweep.settings[setting].of[run]] : null;

  // Runs that differ in nothing but the seed, together; a line holds those that differ in x alone.
  function pointsOf(metric, x, group) {
    const only = [...settings.querySelectorAll("select")].filter((one) => one.value !== "");
    const points = new Map(), values = sweep.metrics[metric];
    sweep.ids.forEach((id, run) => {
      for (const one of only) { // a run without a setting is not left out by it
        const of = sweep.settings[one.name];
        if (of.values[of.of[run]] !== null && String(of.of[run]) !== one.value) return;
      }
      const rest = Object.keys(sweep.settings).filter((name) => name !== x);
      const key = JSON.stringify(rest.map((name) => sweep.settings[name].of[run]));
      const line = nameOf(group, run), place = JSON.stringify([key, valueOf(x, run)]);
      if (!points.has(place)) {
        const differs = Object.fromEntries(rest.map((name) => [name, valueOf(name, run)]));
        points.set(place, { x: valueOf(x, run), line, key, settings: differs, runs: [] });
      }
      points.get(place).runs.push({ id, run, seed: sweep.seeds[run], status: sweep.status[run], value: values[run] });
    });
    for (const point of points.values()) {
      const ended = point.runs.map((run) => run.value).filter((value) => value !== null);
      point.n = ended.length;
      point.mean = ended.length ? ended.reduce((a, b) => a + b, 0) / ended.length : null;
      point.low = ended.length ? Math.min(...ended) : null;
      point.high = ended.length ? Math.max(...ended) : null;
    }
    return [...points.values()];
  }
  function nameOf(group, run) {
    if (group === "") return "all";
    if (group !== ARM) return `${group.split(".").pop()} ${tell(valueOf(group, run))}`;
    const name = valueOf(NAME, run), sigma = valueOf(SIGMA, run);
    return (data.looks[name]?.label || name) + (sigma !== null && axes.elements.x.value !== SIGMA ? `, σ = ${tell(sigma)}` : "");
  }

  // ---- runs: the chart ----------------------------------------------------------------------------------------------

  function colours(points) {
    const order = (point) => [Object.keys(data.looks).indexOf(point.settings[NAME]), point.settings[SIGMA] ?? 0];
    const sorted = [...points].sort((a, b) => order(a)[0] - order(b)[0] || order(a)[1] - order(b)[1]);
    const lines = [...new Set(sorted.map((point) => point.line))], found = new Map();
    const byArm = axes.elements.group.value === ARM || axes.elements.group.value === NAME;
    lines.forEach((line, place) => {
      const first = points.find((point) => point.line === line), look = data.looks[first.settings[NAME]];
      const same = lines.filter((one) => points.find((point) => point.line === one).settings[NAME] === first.settings[NAME]);
      found.set(line, byArm && look ? shade(look.color, same.indexOf(line), same.length) : SPARE[place % SPARE.length]);
    });
    return found;
  }
  function shade(colour, place, count) { // several sigmas of a method: from light to dark, as in the figures
    if (count < 2) return colour;
    const share = place / (count - 1), part = share < 0.5 ? 0.55 * (1 - 2 * share) : 0.65 * (2 * share - 1);
    const to = share < 0.5 ? 255 : 0;
    return `rgb(${[1, 3, 5].map((k) => Math.round(parseInt(colour.slice(k, k + 2), 16) * (1 - part) + to * part)).join()})`;
  }
  // A scale: numbers to pixels, with marks; 0 and what is no number have places of their own on a logarithmic axis.
  function scaleOf(values, from, to, log) {
    const finite = values.filter((value) => typeof value === "number" && (!log || value > 0));
    let least = Math.min(...finite), most = Math.max(...finite);
    if (!finite.length) [least, most] = [log ? 1 : 0, log ? 10 : 1];
    if (least === most) [least, most] = log ? [least / 2, most * 2] : [least - (Math.abs(least) || 1) / 2, most + (Math.abs(most) || 1) / 2];
    const f = log ? Math.log10 : (value) => value;
    const pad = 0.04 * (f(most) - f(least)), low = f(least) - pad, high = f(most) + pad;
    const put = (value) => from + ((to - from) * (f(value) - low)) / (high - low);
    return { put, marks: log ? decades(least, most) : rounds(least, most) };
  }
  function decades(least, most) {
    const from = Math.ceil(Math.log10(least) - 1e-9), to = Math.floor(Math.log10(most) + 1e-9);
    const step = Math.max(1, Math.ceil((to - from) / 6)), found = [];
    for (let power = from; power <= to; power += step) found.push(Number(`1e${power}`));
    return found.length > 1 ? found : rounds(least, most).filter((one) => one > 0);
  }
  function rounds(least, most) {
    const rough = (most - least) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power, found = [];
    for (let k = Math.ceil(least / step - 1e-9); k * step <= most + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
    return found;
  }
  function alongX(points, from, to) {
    const values = [...new Set(points.map((point) => point.x))];
    const numbers = values.filter((value) => typeof value === "number").sort((a, b) => a - b);
    const positive = numbers.filter((value) => value > 0);
    const log = positive.length > 2 && numbers[0] >= 0 && positive.at(-1) / positive[0] >= 20;
    const others = [...values.filter((value) => typeof value !== "number"), ...(log && numbers[0] === 0 ? [0] : [])];
    if (!positive.length || others.some((value) => typeof value === "string")) { // names: one beside the other
      const all = [...others.filter((one) => one !== 0), ...numbers], place = (value) => from + ((to - from) * (all.indexOf(value) + 0.5)) / all.length;
      return { put: place, marks: all, slots: all };
    }
    const width = Math.min(48, (to - from) / 8), scale = scaleOf(log ? positive : numbers, from + width * others.length, to, log);
    const put = (value) => others.includes(value) ? from + width * (others.indexOf(value) + 0.5) : scale.put(value);
    const exact = positive.length <= 8 && numbers.length <= 8 ? (log ? positive : numbers) : scale.marks;
    return { put, marks: [...others, ...exact], slots: others };
  }

  const SVG = "svg:";
  function draw() {
    const metric = axes.elements.metric.value, x = axes.elements.x.value, group = axes.elements.group.value;
    const log = axes.elements.scale.value === "log";
    const points = pointsOf(metric, x, group), there = points.filter((point) => point.mean !== null && (!log || point.mean > 0));
    const ended = points.reduce((sum, point) => sum + point.n, 0), all = points.reduce((sum, point) => sum + point.runs.length, 0);
    at("run-count").textContent = `${points.length} points from ${all} of ${sweep.ids.length} runs at scale ${sweep.scale}`
      + (ended < all ? `; ${all - ended} runs have no ${metric}` : "") + ".";
    const colour = colours(points);
    at("chart").replaceChildren(chart(there, metric, x, log, colour));
    at("legend").replaceChildren(...[...colour].map(([line, one]) => make("li", {}, make("span", { class: "swatch", style: `background:${one}` }), line)));
    at("point").replaceChildren();
    listPoints(points, metric, x);
  }
  function chart(points, metric, x, log, colour) {
    const width = Math.max(280, at("chart").clientWidth), height = Math.min(460, Math.max(280, 0.5 * width));
    const box = { left: 62, right: width - 14, top: 12, bottom: height - 46 };
    const across = alongX(points, box.left, box.right);
    const up = scaleOf(points.flatMap((point) => [point.low, point.high]), box.bottom, box.top, log);
    const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `${metric} over ${word(x)}: ${points.length} points, which the table below lists` });
    const text = (words, place, more) => make("svg:text", { ...place, ...more }, words);
    for (const mark of up.marks) {
      const y = up.put(mark);
      svg.append(make("svg:line", { x1: box.left, x2: box.right, y1: y, y2: y, class: "grid" }),
        text(tell(mark), { x: box.left - 6, y: y + 4, "text-anchor": "end" }));
    }
    let last = -Infinity;
    for (const mark of [...across.marks].sort((a, b) => across.put(a) - across.put(b))) {
      const place = across.put(mark), words = mark === null ? "none" : tell(mark), half = 3.5 * Math.min(words.length, 12) + 3;
      svg.append(make("svg:line", { x1: place, x2: place, y1: box.bottom, y2: box.bottom + 4, class: "axis" }));
      if (place - half < last) continue; // no room for its words
      svg.append(text(words.length > 12 ? `${words.slice(0, 11)}…` : words, { x: place, y: box.bottom + 18, "text-anchor": "middle" }));
      last = place + half;
    }
    svg.append(make("svg:line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }),
      text(word(x), { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle", class: "title" }),
      text(metric, { x: -(box.top + box.bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle", class: "title" }));
    const lines = new Map();
    for (const point of points) lines.set(point.key, [...(lines.get(point.key) || []), point]);
    for (const line of lines.values()) {
      const along = line.filter((point) => typeof point.x === "number" && !across.slots.includes(point.x)).sort((a, b) => a.x - b.x);
      const path = along.map((point) => `${across.put(point.x)},${up.put(point.mean)}`).join(" ");
      if (along.length > 1) svg.append(make("svg:polyline", { points: path, stroke: colour.get(line[0].line), class: "line" }));
      for (const point of line.filter((one) => one.x === null)) { // it has no such setting: a level
        const y = up.put(point.mean);
        svg.append(make("svg:line", { x1: box.left, x2: box.right, y1: y, y2: y, stroke: colour.get(point.line), class: "level" }));
      }
    }
    for (const point of points) {
      const px = across.put(point.x), one = colour.get(point.line);
      const whisker = [point.low, point.high].map((value) => up.put(log && value <= 0 ? point.mean : value));
      const words = `${point.line}, ${word(x)} ${tell(point.x)}: ${tell(point.mean)} (${point.n} of ${point.runs.length} seeds)`;
      svg.append(make("svg:line", { x1: px, x2: px, y1: whisker[0], y2: whisker[1], stroke: one, class: "whisker" }),
        make("svg:circle", { cx: px, cy: up.put(point.mean), r: 5, fill: one, class: "point", onclick: () => showPoint(point, metric, x), "data-runs": point.runs.map((run) => run.id).join(" ") },
          make("svg:title", {}, words)));
    }
    return svg;
  }

  // ---- runs: the table of points, and the runs of one ---------------------------------------------------------------

  function listPoints(points, metric, x) {
    const rest = Object.keys(sweep.settings).filter((name) => name !== x && new Set(points.map((point) => point.settings[name])).size > 1);
    const rank = (value) => value === null ? -Infinity : value;
    const sorted = [...points].sort((a, b) => (a.line < b.line ? -1 : a.line > b.line ? 1 : 0) || (rank(a.x) < rank(b.x) ? -1 : 1));
    const rows = sorted.map((point) => make("tr", {},
      make("td", {}, tell(point.x)), ...rest.map((name) => make("td", {}, tell(point.settings[name]))),
      make("td", { class: "number" }, tell(point.mean)), make("td", { class: "number" }, `${tell(point.low)} to ${tell(point.high)}`),
      make("td", {}, make("button", { type: "button", "aria-label": `${point.runs.length} runs of ${point.line}, ${word(x)} ${tell(point.x)}`,
        onclick: () => showPoint(point, metric, x) }, `${point.runs.length} runs`))));
    at("points").replaceChildren(table("plain", [word(x), ...rest.map(word), `mean ${metric}`, "smallest to largest", "runs"], rows));
  }
  function showPoint(point, metric, x) {
    const said = [[x, point.x], ...Object.entries(point.settings)].filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} = ${tell(value)}`).join(", ");
    const rows = [...point.runs].sort((a, b) => a.seed - b.seed).map((run) => make("tr", {},
      make("td", { class: "number" }, String(run.seed)), make("td", {}, make("code", {}, run.id)), make("td", {}, run.status),
      make("td", { class: "number" }, run.value === null ? "–" : String(run.value)),
      make("td", { class: "number" }, tell(sweep.seconds[run.run]))));
    at("point").replaceChildren(make("div", { class: "runs-of" },
      make("h2", {}, `${point.line}: ${metric} ${tell(point.mean)}`), make("p", {}, `${said}. ${point.n} of ${point.runs.length} runs have a value.`),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs of the point" },
        table("plain", ["seed", "run", "status", metric, "seconds"], rows))));
    for (const one of at("chart").querySelectorAll(".point")) {
      one.classList.toggle("chosen", one.dataset.runs === point.runs.map((run) => run.id).join(" "));
    }
    at("point").scrollIntoView({ block: "nearest" });
  }

  // ---- the two views ------------------------------------------------------------------------------------------------

  function view() {
    chosen = new URLSearchParams(location.hash.slice(1));
    const runs = chosen.get("view") === "runs";
    at("claims").hidden = runs;
    at("runs").hidden = !runs;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String((button.dataset.view === "runs") === runs));
    }
    if (runs) toAxes(); else { toFilters(); showClaims(); }
  }
  startClaims();
  startRuns();
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      const figure = chosen.get("figure"), next = new URLSearchParams();
      if (button.dataset.view === "runs") next.set("view", "runs");
      if (figure && (button.dataset.view === "claims" || data.sweeps[figure])) next.set("figure", figure);
      say(next);
      view();
    });
  }
  addEventListener("hashchange", view);
  view();
})();
