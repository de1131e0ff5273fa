// One module for every explorer. It draws frames, which are data: a sentence and panels. A frame comes from the
// explorer's own page module, from the saved presets, or from Python. `model` is AFM's: get, set, on, save_changes, send.

const SVG = "http://www.w3.org/2000/svg";
const NEEDS_PYTHON = "What is greyed out needs Python: run the notebook's cells first.";
const NO_ANSWER = "Python does not answer: run this cell again.";
const BUSY = 150; // ms until a reader is told that it takes a while
const PATIENCE = 30000; // ms for an answer
const MISSING = 255; // among the 8-bit numbers of a map: not finite; 0 … 254 are its range
const PROPERTIES = ["value", "checked", "selectedIndex", "disabled"];

function make(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (PROPERTIES.includes(name) || value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  for (const name of PROPERTIES) if (name in attributes) node[name] = attributes[name]; // after the options
  return node;
}

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const png = (data) => `data:image/png;base64,${data}`;
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// As helpers.text.short writes it.
function short(number, digits = 3) {
  if (number === 0 || !Number.isFinite(number)) return String(number);
  const [mantissa, exponent] = number.toExponential(digits - 1).split("e");
  const rounded = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
  if (Math.abs(number) < 0.01) return `${rounded}e${+exponent}`;
  if (+exponent >= digits) return `${rounded}e+${exponent.slice(1).padStart(2, "0")}`;
  return String(Number(number.toPrecision(digits)));
}

// ---- maps -----------------------------------------------------------------------------------------------------------

// A map is {title, note, shape: [rows, columns], values, low, high, diverging}; `values`: 8-bit numbers, as base64 or
// an array; none stand for the middle everywhere. A picture among them is {title, png}.
function eightBit({ shape, values }) {
  if (!values) return new Uint8Array(shape[0] * shape[1]).fill((MISSING - 1) / 2);
  return typeof values === "string" ? fromBase64(values) : values;
}

function valueAt(map, index) {
  const value = eightBit(map)[index];
  return value === MISSING ? NaN : map.low + ((map.high - map.low) * value) / (MISSING - 1);
}

function painted(map, page, attributes) {
  const [rows, columns] = map.shape;
  const canvas = make("canvas", { width: columns, height: rows, role: "img", ...attributes });
  const colors = page.palettes[map.diverging ? "difference" : "activation"];
  const pixels = new ImageData(columns, rows);
  eightBit(map).forEach((value, i) => pixels.data.set([...colors.slice(3 * value, 3 * value + 3), 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// Side by side, with one pointer for all. With `divider`, the first two maps can be laid over one another.
function maps(panel, page) {
  const readout = make("output", { class: "line" }, panel.note ?? "");
  const box = make("div", { class: "maps" });
  const place = { row: 0, column: 0 };

  function point(row, column, [rows, columns]) {
    Object.assign(place, { row: clamp(row, 0, rows - 1), column: clamp(column, 0, columns - 1) });
    const same = panel.maps.filter((map) => map.shape?.[0] === rows);
    const words = same.map((m) => `${m.title.split(":")[0]} ${short(valueAt(m, place.row * columns + place.column))}`);
    readout.textContent = `row ${place.row}, column ${place.column}: ${words.join(" · ")}`;
    for (const [name, share] of [
      ["--x", place.column / columns],
      ["--y", place.row / rows],
      ["--cell", 1 / columns],
    ])
      box.style.setProperty(name, `${100 * share}%`);
    box.classList.add("pointed");
  }

  function picture(map) {
    if (!map.shape) return make("img", { src: png(map.png), alt: map.title });
    const [rows, columns] = map.shape;
    const canvas = painted(map, page, {
      tabindex: 0,
      "data-key": `map ${map.title}`,
      "aria-label": `${map.title}${map.note ? `, ${map.note}` : ""}. Arrow keys read its values.`,
      pointermove: (event) => {
        const area = canvas.getBoundingClientRect();
        const [x, y] = [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
        point(Math.floor(y * rows), Math.floor(x * columns), map.shape);
      },
      keydown: (event) => {
        const step = {
          ArrowLeft: [0, -1],
          ArrowRight: [0, 1],
          ArrowUp: [-1, 0],
          ArrowDown: [1, 0],
        }[event.key];
        if (!step) return;
        event.preventDefault();
        point(place.row + step[0], place.column + step[1], map.shape);
      },
    });
    return canvas;
  }

  const figure = (title, note, ...parts) =>
    make("figure", {}, ...parts, make("figcaption", {}, make("b", {}, title), note ? ` ${note}` : null));
  const framed = (...pictures) => make("div", { class: "frame" }, ...pictures, make("i", { class: "cell" }));
  const figures = panel.maps.map((map) => figure(map.title, map.note, framed(picture(map))));
  let toggle = null;
  if (panel.divider) {
    const on = page.local.divider !== undefined;
    if (on) figures.splice(0, 2, divided(...panel.maps));
    const attributes = { type: "button", "aria-pressed": on, "data-key": "divider" };
    const click = () => page.redraw({ divider: on ? undefined : 50 });
    toggle = make("button", { ...attributes, click }, "A over B, with a divider");
  }

  function divided(a, b) {
    const frame = framed(picture(b), picture(a), make("i", { class: "divider" }));
    frame.classList.add("divided");
    const move = () => frame.style.setProperty("--at", `${(page.local.divider = +range.value)}%`);
    const label = `divider: left of it ${a.title}, right of it ${b.title}`;
    const range = make("input", {
      type: "range",
      min: 0,
      max: 100,
      input: move,
      "aria-label": label,
    });
    range.value = page.local.divider;
    move();
    return figure(`${a.title} | ${b.title}`, a.note, frame, range);
  }

  box.append(...figures);
  return make("div", {}, box, make("div", { class: "under" }, readout, toggle));
}

// ---- cards ----------------------------------------------------------------------------------------------------------

// Rows of cards, with arrows between them: what is computed from what. A card shows a map or a picture, a bar and
// words; `pick` is what a click on it sets, `select` a list below it for one entry of a trait that is a list; `faint`
// is there for comparison; `arrow` is the one after it; without a title it only keeps a place free; `kind` own is marked
// in its `color`. In a panel with `thumbs` they are small and many: `title` is their description.
function cards(panel, page) {
  const row = (all) => make("div", { class: "cards", role: "group", "aria-label": panel.title ?? "" }, all.map(card));
  const title = panel.title ? make("b", {}, panel.title) : null;
  return make("div", { class: panel.thumbs ? "thumbs" : "" }, title, panel.rows.map(row));

  function thumb({ title, png: data, faint }) {
    page.thumbs[title] ??= make("img", { src: png(data), title }); // a new one would flicker
    return Object.assign(page.thumbs[title], { alt: faint ? "" : title });
  }

  function card(one) {
    if (!one.title) return make("div", { class: "card" });
    const parts = [
      one.map ? painted(one.map, page, { "aria-hidden": true }) : null,
      one.png ? (panel.thumbs ? thumb(one) : make("img", { src: png(one.png), alt: one.alt ?? "" })) : null,
      panel.thumbs && one.png ? null : make("b", {}, one.title),
      one.share === undefined ? null : track(one.share, panel.floor),
      one.text ? make("small", {}, one.text) : null,
    ];
    const flags = { warn: one.warn, arrows: panel.arrows, faint: one.faint, [one.kind]: one.kind };
    const classes = ["card", ...Object.keys(flags).filter((flag) => flags[flag])].join(" ");
    const style = `--arrow:"${one.arrow ?? "→"}";--own:${one.color}`;
    const key = `card ${one.key ?? one.title}`;
    const click = () => page.set(one.pick);
    const pressed = { type: "button", "aria-pressed": !!one.pressed, "data-key": key };
    const ready = one.pick && { ...pressed, disabled: !page.can(one.pick), click };
    const shown = one.pick ? make("button", ready, parts) : make("div", {}, parts);
    return make(
      "div",
      { class: classes, style, ...linked(one, page) },
      shown,
      one.select ? list(one.select, page) : null,
    );
  }
}

// One entry of a trait that is a list.
function list({ trait, index, label, options }, page) {
  const changed = (value) => ({
    [trait]: page.state[trait].map((old, i) => (i === index ? value : old)),
  });
  return make(
    "select",
    {
      "aria-label": label,
      "data-key": `${trait} ${index}`,
      selectedIndex: options.indexOf(page.state[trait][index]),
      change: (event) => page.set(changed(options[event.target.selectedIndex])),
    },
    options.map((option) => make("option", { disabled: !page.can(changed(option)) }, option)),
  );
}

// What has the same `link` is highlighted together.
function linked(one, page) {
  if (one.link === undefined) return {};
  const mark = (on) => () =>
    page.root.querySelectorAll(`[data-link="${one.link}"]`).forEach((node) => node.classList.toggle("hot", on));
  return {
    "data-link": one.link,
    mouseenter: mark(true),
    mouseleave: mark(false),
    focusin: mark(true),
    focusout: mark(false),
  };
}

// ---- bars -----------------------------------------------------------------------------------------------------------

const track = (share, floor = 0, first = 0) =>
  make("span", {
    class: "track",
    style: `--share:${100 * clamp(share, 0, 1)}%;--floor:${100 * floor}%;--first:${(100 * first) / (share || 1)}%`,
  });
const keysOf = (panel) => (panel.keys ?? []).map(({ kind, text }) => make("span", { class: `key ${kind}` }, text));

// {rows: [{label, share, first, text}], floor, keys}: `share` of the track, of which the first `floor` is nothing to
// speak of; the bar's part up to `first` is cool, the rest warm.
function bars(panel) {
  const row = (one) => [
    make("span", {}, one.label),
    track(one.share, one.floor ?? panel.floor, one.first),
    make("span", {}, one.text),
  ];
  const title = panel.title ? make("div", {}, make("b", {}, panel.title), keysOf(panel)) : null;
  const note = panel.note ? make("p", { class: "line" }, panel.note) : null;
  return make("div", {}, title, make("div", { class: "bars" }, panel.rows.flatMap(row)), note);
}

// ---- an image with boxes --------------------------------------------------------------------------------------------

// {title, alt, png, size: [width, height], boxes: [{box: [x0, y0, x1, y1], kind, text, pick, pressed}], note}; a box of
// kind own has its `color`; `badge`: the number of a box in place of its place in the list.
function image(panel, page) {
  const [width, height] = panel.size;
  const overlay = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
  const unit = Math.max(width, height) / 300;
  const named = [];
  panel.boxes.forEach((one, i) => {
    const [x0, y0, x1, y1] = one.box;
    const place = { x: x0, y: y0, width: Math.max(x1 - x0, unit), height: Math.max(y1 - y0, unit) };
    const link = { link: one.text ? `box ${i}` : undefined };
    const hot = one.pressed ? " pressed" : "";
    const style = `--own:${one.color}`;
    for (const layer of ["seam", `box ${one.kind}${hot}`])
      overlay.append(
        make("svg:rect", {
          ...place,
          class: layer,
          style,
          ...(layer === "seam" ? {} : linked(link, page)),
        }),
      );
    if (!one.text) return;
    named.push(one);
    const at = {
      x: clamp(x0, 8 * unit, width - 8 * unit),
      y: clamp(y0, 8 * unit, height - 4 * unit),
    };
    const badge = [
      make("svg:circle", { cx: at.x, cy: at.y, r: 8 * unit }),
      make("svg:text", { ...at, "font-size": 11 * unit }, String(one.badge ?? named.length)),
    ];
    const click = one.pick ? () => page.can(one.pick) && page.set(one.pick) : null;
    overlay.append(make("svg:g", { class: `badge ${one.kind}${hot}`, style, click, ...linked(link, page) }, badge));
  });
  const entry = (one) => {
    const link = linked({ link: `box ${panel.boxes.indexOf(one)}` }, page);
    if (one.badge) link.value = one.badge;
    if (!one.pick) return make("li", { class: one.kind, ...link }, one.text);
    const pressed = { type: "button", "aria-pressed": !!one.pressed, "data-key": one.text };
    const click = () => page.set(one.pick);
    return make(
      "li",
      { class: one.kind, ...link },
      make("button", { ...pressed, click, disabled: !page.can(one.pick) }, one.text),
    );
  };
  const frame = make("div", { class: "frame" }, make("img", { src: png(panel.png), alt: panel.alt }), overlay);
  const words = make("figcaption", {}, make("b", {}, panel.title), panel.note ? ` ${panel.note}` : null);
  return make("figure", { class: "image" }, frame, words, named.length ? make("ol", {}, named.map(entry)) : null);
}

// ---- plots ----------------------------------------------------------------------------------------------------------

const MARGIN = { left: 46, right: 10, top: 8, bottom: 34 };

function ticks({ low, high, log }) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const decades = Math.floor(Math.log10(high) + 1e-9) - first + 1;
    const step = Math.ceil(decades / 6);
    return Array.from({ length: Math.ceil(decades / step) }, (_, i) => 10 ** (first + i * step));
  }
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => step * (first + i));
}

// {x, y: {label, low, high, log}, lines: [{x, y, kind, link}], dots: [{x, y, kind, name: i → words, pick: i → changes}],
// keys, note, width, height}. Dots are drawn on a canvas, for there may be thousands; the nearest to the pointer says its
// name, and a click picks it.
function plot(panel, page) {
  const { width = 400, height = 230 } = panel;
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : (v) => v;
    const [low, high] = [f(axis.low), f(axis.high)];
    return (v) => from + ((to - from) * (clamp(f(v), low, high) - low)) / (high - low || 1);
  };
  const x = scale(panel.x, MARGIN.left, width - MARGIN.right);
  const y = scale(panel.y, height - MARGIN.bottom, MARGIN.top);
  const svg = make("svg:svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": panel.alt ?? panel.title,
  });
  const line = (x1, y1, x2, y2, kind) => svg.append(make("svg:line", { x1, y1, x2, y2, class: kind }));
  const words = (text, attributes) => svg.append(make("svg:text", attributes, text));
  const bottom = height - MARGIN.bottom;
  line(MARGIN.left, bottom, width - MARGIN.right, bottom, "axis");
  line(MARGIN.left, MARGIN.top, MARGIN.left, bottom, "axis");
  for (const tick of ticks(panel.x)) {
    line(x(tick), bottom, x(tick), bottom + 4, "axis");
    words(short(tick).replace("-", "−"), { x: x(tick), y: bottom + 15, "text-anchor": "middle" });
  }
  for (const tick of panel.y.hidden ? [] : ticks(panel.y)) {
    line(MARGIN.left - 4, y(tick), MARGIN.left, y(tick), "axis");
    words(short(tick).replace("-", "−"), {
      x: MARGIN.left - 6,
      y: y(tick) + 4,
      "text-anchor": "end",
    });
  }
  words(panel.x.label, { x: (MARGIN.left + width) / 2, y: height - 4, "text-anchor": "middle" });
  const middle = (MARGIN.top + bottom) / 2;
  words(panel.y.label, {
    transform: `translate(11 ${middle}) rotate(-90)`,
    "text-anchor": "middle",
  });
  for (const one of panel.lines ?? []) {
    const points = one.x.map((v, i) => `${x(v).toFixed(1)} ${y(one.y[i]).toFixed(1)}`);
    svg.append(
      make("svg:path", {
        d: `M${points.join("L")}`,
        class: `curve ${one.kind}`,
        ...linked(one, page),
      }),
    );
  }
  const canvas = make("canvas", { width: 2 * width, height: 2 * height, "aria-hidden": true });
  const readout = make("output", { class: "line" }, panel.note ?? "");
  const places = [];
  for (const group of panel.dots ?? []) {
    const pen = canvas.getContext("2d");
    pen.fillStyle = { many: "#5b8db880", chosen: "#d55e00cc", beyond: "#d55e00cc" }[group.kind] ?? "#0072b2";
    const taken = new Set(); // dots in one place are drawn once
    group.x.forEach((value, i) => {
      const [left, top] = [x(value), y(group.y[i])];
      const place = Math.round(2 * left) + 1e4 * Math.round(2 * top);
      if (taken.has(place)) return;
      taken.add(place);
      places.push([left, top, group, i]);
      pen.beginPath();
      pen.arc(2 * left, 2 * top, 2 * (group.radius ?? 2.5), 0, 7);
      pen.fill();
    });
  }
  const ring = make("svg:circle", { class: "ring", r: 6, cx: -20, cy: -20 });
  svg.append(ring);
  const nearest = (event) => {
    const area = svg.getBoundingClientRect();
    const [left, top] = [event.clientX - area.left, event.clientY - area.top].map((v) => (v * width) / area.width);
    const distance = ([a, b]) => (a - left) ** 2 + (b - top) ** 2;
    const near = places.reduce((best, one) => (distance(one) <= distance(best) ? one : best), [-1e9, 0]);
    return distance(near) > 400 ? [] : near;
  };
  const pointermove = (event) => {
    const [left, top, group, i] = nearest(event);
    if (!group?.name) return;
    ring.setAttribute("cx", left);
    ring.setAttribute("cy", top);
    readout.textContent = group.name(i);
  };
  const click = (event) => {
    const [, , group, i] = nearest(event);
    if (group?.pick && page.can(group.pick(i))) page.set(group.pick(i));
  };
  return make(
    "figure",
    { class: "plot" },
    make("figcaption", {}, make("b", {}, panel.title), keysOf(panel)),
    make("div", { class: "frame", pointermove, click }, canvas, svg),
    readout,
  );
}

const PANELS = { maps, cards, bars, image, plot };

// ---- controls -------------------------------------------------------------------------------------------------------

// Each is {node, show}: `show` sets it to what is shown, and greys out what cannot be.
function control(spec, page) {
  const { trait, label, look, options = [], labels = options } = spec;
  const key = { "data-key": trait, "aria-label": label };
  if (look === "file") return file(spec, page);
  if (look === "buttons") {
    const click = (value) => () => page.set({ [trait]: value });
    const button = (value, i) => make("button", { type: "button", click: click(value) }, String(labels[i]));
    const buttons = options.map(button);
    const show = () =>
      buttons.forEach((one, i) => {
        one.setAttribute("aria-pressed", page.state[trait] === options[i]);
        one.disabled = !page.can({ [trait]: options[i] });
      });
    return {
      node: make("span", { class: "group", role: "group", "aria-label": label }, `${label} `, buttons),
      show,
    };
  }
  if (look === "range") {
    const value = () => options[+input.value];
    const output = make("output");
    const say = (text = labels[+input.value]) => input.setAttribute("aria-valuetext", (output.textContent = text));
    const move = () => (say(), page.set({ [trait]: value() }, false));
    const input = make("input", {
      type: "range",
      min: 0,
      max: options.length - 1,
      ...key,
      input: move,
      change: () => page.save(),
    });
    const show = () => {
      const now = page.state[trait];
      const at = options.indexOf(now);
      input.value = at < 0 ? options.filter((one) => one < now).length : at; // Python may set one between
      input.disabled = !options.some((one) => one !== now && page.can({ [trait]: one }));
      say(at < 0 ? short(now) : labels[at]);
    };
    return { node: make("label", {}, `${label} `, input, output), show };
  }
  if (look === "number") {
    const change = () => page.set({ [trait]: Math.round(+input.value) || 0 });
    const input = make("input", { type: "number", min: 0, ...key, change });
    const show = () => Object.assign(input, { value: page.state[trait], disabled: !page.alive });
    return { node: make("label", {}, `${label} `, input), show };
  }
  const mixed = make("option", { hidden: true }, "(mixed)");
  const select = make(
    "select",
    { ...key, change: () => page.set({ [trait]: options[select.selectedIndex] }) },
    options.map((_, i) => make("option", {}, String(labels[i]))),
    mixed,
  );
  const show = () => {
    const uniform = !spec.all || new Set(page.state[spec.all]).size === 1;
    select.selectedIndex = uniform ? options.indexOf(page.state[trait]) : options.length;
    const can = options.map((one) => page.can({ [trait]: one }));
    options.forEach((_, i) => (select.options[i].disabled = !can[i]));
    select.disabled = !can.some((one, i) => one && (!uniform || options[i] !== page.state[trait]));
  };
  return { node: make("label", {}, `${label} `, select), show };
}

// A picture of the reader's, by button, drop or paste, scaled here: only its pixels travel, and nothing is saved.
function file({ label, side }, page) {
  const input = make("input", {
    type: "file",
    accept: "image/*",
    "data-key": "file",
    "aria-label": label,
    change: () => take(input.files[0]),
  });
  async function take(picked) {
    if (!picked || input.disabled) return;
    try {
      const picture = await createImageBitmap(picked);
      const canvas = make("canvas", { width: side, height: side });
      const pen = canvas.getContext("2d");
      const size = Math.min(picture.width, picture.height);
      pen.fillStyle = "white"; // below what is transparent
      pen.fillRect(0, 0, side, side);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(picture, (picture.width - size) / 2, (picture.height - size) / 2, size, size, 0, 0, side, side);
      page.give(pen.getImageData(0, 0, side, side).data, picked.name, canvas.toDataURL().split(",")[1]);
    } catch {
      page.say(`${picked.name} is no picture that this browser can read: save it as JPEG or PNG first.`);
    }
    input.value = "";
  }
  const only = (event) => event.preventDefault();
  page.root.addEventListener("dragover", only);
  page.root.addEventListener("drop", (event) => (only(event), take(event.dataTransfer.files[0])));
  page.root.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  return {
    node: make("label", {}, `${label} `, input),
    show: () => (input.disabled = !page.alive),
  };
}

// ---- the explorer ---------------------------------------------------------------------------------------------------

async function render({ model, el }) {
  const spec = model.get("spec");
  const presets = model.get("presets");
  const data = model.get("data");
  const own = await imported(model.get("page"));
  const settle = (next, last) => own.settle?.(next, last, data) ?? next;
  const key = (state) => JSON.stringify(Object.entries(own.relevant?.(state, data) ?? state).sort());
  const stored = new Map(presets.map((one) => [key(one.state), one.frame]));
  const pool = JSON.parse(data.pool ?? "[]");
  const pooled = (_, part) => (part?.$ === undefined ? part : pool[part.$]);
  for (const [state, one] of JSON.parse(data.frames ?? "[]", pooled)) stored.set(key(state), one);
  let answer = null; // Python's latest: {key, frame}
  const lookUp = (state) => (answer?.key === key(state) ? answer.frame : (stored.get(key(state)) ?? null));
  const frameOf = (state) => lookUp(state) ?? own.frame?.(state, data) ?? null;
  const has = (state) => (own.has ? own.has(state, data) || lookUp(state) : frameOf(state)) !== null;

  const read = () => Object.fromEntries(spec.traits.map((name) => [name, model.get(name)]));
  let wanted = read(); // what the controls were last set to; page.state is what is shown
  let frame = frameOf(wanted);
  if (!frame) frame = frameOf((wanted = presets[0].state));
  let asked = null; // the question that Python has not answered yet
  let count = 0;
  let scheduled = false;

  const root = make("section", { class: "explorer", "data-lm-suppress-shortcuts": "true", "aria-label": spec.name });
  const sentence = make("p", { class: "sentence", role: "status" });
  const trouble = make("p", { class: "trouble", role: "alert" });
  const panels = make("div", { class: "panels" });

  const page = {
    root,
    palettes: Object.fromEntries(Object.entries(spec.palettes).map(([name, text]) => [name, fromBase64(text)])),
    state: wanted,
    local: { yours: spec.yours }, // what only this view knows
    thumbs: {}, // title → image
    alive: false, // whether Python has answered
    can: (changes) => page.alive || has(settle({ ...page.state, ...changes }, page.state)),
    say: (text) => (trouble.textContent = text),
    redraw: (local) => (Object.assign(page.local, local), draw()),
    save: () => page.alive && model.save_changes(),
    set(changes, save = true) {
      tell(settle({ ...wanted, ...changes }, wanted), save);
      soon();
    },
    give(pixels, name, picture) {
      Object.assign(page.local, { name, picture });
      ask({ ...page.state, [spec.photo]: spec.yours }, pixels);
    },
  };

  function tell(state, save = true) {
    wanted = state;
    const differs = (name) => JSON.stringify(state[name]) !== JSON.stringify(model.get(name));
    for (const name of spec.traits.filter(differs)) model.set(name, state[name]);
    if (save) page.save();
  }

  function soon() {
    if (!scheduled) requestAnimationFrame(update);
    scheduled = true;
  }

  function update() {
    scheduled = false;
    const ready = frameOf(wanted);
    if (ready) show(wanted, ready);
    if (page.alive && (!ready || ready.partial)) ask(wanted);
    else if (!ready) back(NEEDS_PYTHON);
  }

  function show(state, drawn) {
    [page.state, frame] = [state, drawn];
    page.say("");
    draw();
  }

  // The controls say again what the picture shows.
  function back(text) {
    tell(page.state);
    draw();
    page.say(text);
  }

  function ask(state, pixels) {
    if (asked) return void (asked.next = { state, pixels });
    if (gone() || !reach({ id: count + 1, state, pixels: !!pixels }, pixels ? [pixels.buffer] : [])) {
      awake(false);
      return back(NEEDS_PYTHON);
    }
    const busy = setTimeout(() => root.classList.add("busy"), BUSY);
    const late = setTimeout(() => answered({ id: asked.id, error: NO_ANSWER }), PATIENCE);
    asked = { id: ++count, state, pixels, timers: [busy, late] };
  }

  // Whether a message could be sent: a kernel that was shut down refuses it.
  function reach(message, buffers) {
    try {
      model.send(message, undefined, buffers);
      return true;
    } catch {
      return false;
    }
  }

  function answered(reply) {
    if (asked?.id !== reply.id) return;
    const { state, pixels, next, timers } = asked;
    timers.forEach(clearTimeout);
    root.classList.remove("busy");
    asked = null;
    if (next && (next.pixels || key(next.state) !== key(state))) return ask(next.state, next.pixels);
    if (reply.error) return back(reply.error);
    answer = { key: key(state), frame: reply.frame };
    if (pixels) tell(state);
    if (key(wanted) === answer.key) show(wanted, reply.frame);
  }

  const buttons = presets.map(({ name, state }) =>
    make("button", { type: "button", click: () => page.set(state) }, name),
  );
  const controls = spec.controls.map((one) => control(one, page));
  const note = make("p", { class: "line" }, NEEDS_PYTHON);

  function draw() {
    const focused = root.getRootNode().activeElement?.dataset?.key;
    sentence.replaceChildren(frame.headline ? make("strong", {}, frame.headline, " ") : "", frame.sentence);
    const all = own.panels?.(frame, page.state, data, page.local) ?? frame.panels;
    panels.replaceChildren(...all.map((one) => panelOf(one)), ...(frame.table ? [table(frame.table)] : []));
    controls.forEach((one) => one.show());
    presets.forEach(({ state }, i) => buttons[i].setAttribute("aria-pressed", key(state) === key(page.state)));
    note.hidden = page.alive || !root.querySelector(".controls :disabled, .panels :disabled");
    if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function panelOf(panel) {
    const node = PANELS[panel.kind](panel, page);
    node.classList.add("panel", panel.kind, ...["wide", "large"].filter((look) => panel[look]));
    return node;
  }

  function table({ header, rows }) {
    const row = (tag, cells) =>
      make(
        "tr",
        {},
        cells.map((cell) => make(tag, {}, cell)),
      );
    const inside = make(
      "table",
      {},
      row("th", header),
      rows.map((cells) => row("td", cells)),
    );
    const toggle = (event) => (page.local.table = event.target.open);
    const summary = make("summary", { "data-key": "table" }, "The numbers");
    const node = make("details", { class: "panel wide", toggle }, summary, make("div", { class: "scroll" }, inside));
    node.open = !!page.local.table;
    return node;
  }

  const look = () => page.alive && (gone() || !reach({ hello: true })) && awake(false);
  for (const event of ["pointerenter", "focusin"]) root.addEventListener(event, look);

  // A host that has lost its kernel may mark the view so, as JupyterLab does; elsewhere a question finds it out.
  const gone = () => root.closest(".jupyter-widgets-disconnected") !== null;
  const observer = new MutationObserver(() => gone() && awake(false));
  function awake(now) {
    page.alive = now;
    draw();
  }
  function heard(message) {
    if (!message.ready) return answered(message);
    if (page.alive) return;
    awake(true);
    wanted = settle(read(), page.state);
    if (key(wanted) !== key(page.state) || frame.partial) soon();
  }
  function changed(name) {
    const value = model.get(name);
    if (JSON.stringify(value) === JSON.stringify(wanted[name])) return;
    tell(settle({ ...wanted, [name]: value }, wanted));
    soon();
  }

  const bar = make("div", { class: "presets", role: "group", "aria-label": "presets" }, buttons);
  const row = (below) => {
    const some = spec.controls.flatMap((one, i) => (!!one.below === below ? [controls[i].node] : []));
    return make("div", { class: "controls" }, some);
  };
  root.append(bar, row(false), sentence, trouble, panels, row(true), note);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
  observer.observe(el, { attributes: true, attributeFilter: ["class"] });
  draw();
  model.on("msg:custom", heard);
  const listeners = spec.traits.map((name) => [`change:${name}`, () => changed(name)]);
  for (const [event, listener] of listeners) model.on(event, listener);
  reach({ hello: true });
  return () => {
    observer.disconnect();
    model.off?.("msg:custom", heard);
    for (const [event, listener] of listeners) model.off?.(event, listener);
  };
}

async function imported(source) {
  if (!source) return {};
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const own = await import(address);
  URL.revokeObjectURL(address);
  return own;
}

export default { render };
