// One module for every explorer. It draws frames, which come from the explorer's own page module, from what is saved,
// or from Python (CONTRIBUTING.md, Frames). `model` is AFM's.

const NEEDS_PYTHON = "What is greyed out needs Python: run the notebook's cells first.";
const NO_ANSWER = "Python does not answer: run this cell again.";
const BUSY = 150; // ms until a reader is told that it takes a while
const PATIENCE = 30000; // ms for an answer
const MISSING = 255; // among the 8-bit numbers of a map: not finite; 0 … 254 are its range
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const COLORS = { wrong: "#b34700", other: "#6a3d9a", truth: "black", thin: "var(--edge)" };
for (const kind of ["right", "cool", "filled"]) COLORS[kind] = "var(--cool)";
for (const kind of ["ink", "dashed"]) COLORS[kind] = "var(--ink)";
const PROPERTIES = ["value", "checked", "selectedIndex", "disabled"];

// `attributes`: functions are listeners. What is null or undefined is left out, among the children, too.
function make(tag, attributes, ...children) {
  const [name, namespace] = tag.split(":").reverse();
  const node = namespace ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (PROPERTIES.includes(key) || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  for (const key of PROPERTIES) if (key in attributes) node[key] = attributes[key]; // after the options
  return node;
}

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const imageOf = (png, alt) => make("img", { src: `data:image/png;base64,${png}`, alt });
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const captionOf = ({ title, note }, ...more) =>
  make("figcaption", {}, make("b", {}, title), note ? ` ${note}` : null, ...more);
const shareOf = (event, area = event.target.getBoundingClientRect()) => [
  (event.clientX - area.left) / area.width,
  (event.clientY - area.top) / area.height,
];

// As helpers.text.short writes it, with a real minus.
function short(number, digits = 3) {
  if (number < 0) return `−${short(-number, digits)}`;
  if (number === 0 || !Number.isFinite(number)) return String(number);
  const [mantissa, exponent] = number.toExponential(digits - 1).split("e");
  const rounded = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
  if (Math.abs(number) < 0.01) return `${rounded}e${+exponent}`;
  if (+exponent >= digits) return `${rounded}e+${exponent.slice(1).padStart(2, "0")}`;
  return String(Number(number.toPrecision(digits)));
}

// A button that sets what `one.pick` says, if that can be shown; else a `tag`.
function pickable(tag, one, key, page, ...children) {
  if (!one.pick) return make(tag, {}, ...children);
  const look = { "aria-pressed": String(!!one.pressed), "data-key": key, disabled: !page.can(one.pick) };
  return make("button", { ...look, click: () => page.set(one.pick) }, ...children);
}

const inColor = ({ kind, color = COLORS[kind] ?? "var(--warm)" }) => ({ style: `--own:${color}` });

// What has the same `link` is highlighted together.
function linked(link, page) {
  if (link === undefined) return {};
  const mark = (on) => () =>
    page.root.querySelectorAll(`[data-link="${link}"]`).forEach((node) => node.classList.toggle("hot", on));
  const [hot, cold] = [mark(true), mark(false)];
  return { "data-link": link, mouseenter: hot, mouseleave: cold, focusin: hot, focusout: cold };
}

function eightBit({ shape, values }) {
  if (!values) return new Uint8Array(shape[0] * shape[1]).fill((MISSING - 1) / 2);
  return typeof values === "string" ? fromBase64(values) : values;
}

function painted(map, page, attributes) {
  const [height, width] = map.shape;
  const canvas = make("canvas", { width, height, role: "img", ...attributes });
  const colors = page.palettes[map.diverging ? "difference" : "activation"];
  const pixels = new ImageData(width, height);
  const dots = new Uint32Array(pixels.data.buffer);
  const color = (v) => (255 << 24) | (colors[v + 2] << 16) | (colors[v + 1] << 8) | colors[v];
  eightBit(map).forEach((value, i) => (dots[i] = color(3 * value)));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function maps(panel, page) {
  const readout = make("output", { class: "line" }, panel.note ?? "");
  const box = make("div", { class: "maps" });
  const place = { row: 0, column: 0 };

  function point(row, column, [rows, columns], live) {
    Object.assign(place, { row: clamp(row, 0, rows - 1), column: clamp(column, 0, columns - 1) });
    const value = (map) => {
      const number = eightBit(map)[place.row * columns + place.column];
      return number === MISSING ? NaN : map.low + ((map.high - map.low) * number) / (MISSING - 1);
    };
    const same = panel.maps.filter((map) => map.shape?.[0] === rows);
    const words = same.map((map) => `${map.title.split(":")[0]} ${short(value(map))}`);
    readout.ariaLive = live; // a pointer's way is not read out
    readout.textContent = `row ${place.row}, column ${place.column}: ${words.join(" · ")}`;
    const shares = { "--x": place.column / columns, "--y": place.row / rows, "--cell": 1 / columns };
    for (const name in shares) box.style.setProperty(name, `${100 * shares[name]}%`);
    box.classList.add("pointed");
  }

  function drawn(map) {
    if (!map.shape) return imageOf(map.png, map.title);
    const label = `${map.title}${map.note ? `, ${map.note}` : ""}. Arrow keys read its values.`;
    const pointermove = (event) => {
      const [x, y] = shareOf(event);
      point(Math.floor(y * map.shape[0]), Math.floor(x * map.shape[1]), map.shape, "off");
    };
    const keydown = (event) => {
      if (!STEPS[event.key]) return;
      event.preventDefault();
      const [down, right] = STEPS[event.key];
      point(place.row + down, place.column + right, map.shape, "polite");
    };
    const key = `map ${map.title}`;
    return painted(map, page, { tabindex: 0, "data-key": key, "aria-label": label, pointermove, keydown });
  }

  const framed = (kind, ...some) => make("div", { class: `frame ${kind}` }, some, make("i", { class: "cell" }));
  const figures = panel.maps.map((map) => make("figure", {}, framed("", drawn(map)), captionOf(map)));
  const on = page.local.divider !== undefined;
  if (panel.divider && on) figures.splice(0, 2, divided(...panel.maps));
  const click = () => page.redraw({ divider: on ? undefined : 50 });
  const button = { "aria-pressed": String(on), "data-key": "divider", click };

  function divided(a, b) {
    const frame = framed("divided", drawn(b), drawn(a), make("i", { class: "divider" }));
    const move = () => frame.style.setProperty("--at", `${(page.local.divider = +range.value)}%`);
    const drag = (event) => event.buttons && move((range.value = 100 * shareOf(event)[0]));
    for (const name of ["pointerdown", "pointermove"]) frame.addEventListener(name, drag);
    const label = `divider: left of it ${a.title}, right of it ${b.title}`;
    const look = { type: "range", "aria-label": label, "data-key": "range" };
    const range = make("input", { ...look, value: page.local.divider, input: move });
    move();
    return make("figure", {}, frame, range, captionOf({ title: `${a.title} | ${b.title}`, note: a.note }));
  }

  box.append(...figures);
  const divider = panel.divider ? make("button", button, "A over B, with a divider") : null;
  return make("div", {}, box, make("div", { class: "under" }, readout, divider));
}

function cards(panel, page) {
  const thumb = ({ title, png, faint }) => {
    page.thumbs[title] ??= imageOf(png, title); // a new one would flicker
    return Object.assign(page.thumbs[title], { title, ariaHidden: !!faint });
  };
  const card = (one) => {
    if (!one.title) return make("div", { class: "card" });
    const parts = [
      one.map ? painted(one.map, page, { "aria-hidden": true }) : null,
      one.png ? thumb(one) : make("b", {}, one.title),
      one.share === undefined ? null : track(one.share, panel.floor),
      one.text ? make("small", {}, one.text) : null,
    ];
    const looks = ["card", one.warn && "warn", panel.arrows && "arrows", one.faint && "faint", one.kind];
    const style = `--arrow:"${one.arrow ?? "→"}";--own:${one.color}`;
    const attributes = { class: looks.filter(Boolean).join(" "), style, ...linked(one.link, page) };
    const shown = pickable("div", one, `card ${one.title}`, page, parts);
    return make("div", attributes, shown, one.select ? entry(one.select, page) : null);
  };
  const row = (all) => make("div", { class: "cards", role: "group", "aria-label": panel.title ?? "" }, all.map(card));
  const title = panel.title ? make("b", { class: "line" }, panel.title) : null;
  return make("div", { class: panel.thumbs ? "thumbs" : "" }, title, panel.rows.map(row));
}

function entry({ trait, index, label, options }, page) {
  const now = page.state[trait];
  const changed = (value) => ({ [trait]: now.map((old, i) => (i === index ? value : old)) });
  const change = (event) => page.set(changed(options[event.target.selectedIndex]));
  const attributes = { "aria-label": label, "data-key": `${trait} ${index}`, change };
  const all = options.map((one) => make("option", { disabled: !page.can(changed(one)) }, one));
  return make("select", { ...attributes, selectedIndex: options.indexOf(now[index]) }, all);
}

function track(share, floor = 0, first = 0) {
  const shares = { share: clamp(share, 0, 1), floor, first: first / (share || 1) };
  const style = Object.entries(shares).map(([name, value]) => `--${name}:${100 * value}%`);
  return make("span", { class: "track", style: style.join(";") });
}

const keysOf = ({ keys = {} }) =>
  Object.entries(keys).map(([kind, text]) => make("span", { class: `key ${kind}`, ...inColor({ kind }) }, text));

function bars(panel) {
  const say = (text) => make("span", {}, text);
  const row = (one) => [say(one.label), track(one.share, one.floor ?? panel.floor, one.first), say(one.text)];
  const title = make("div", {}, make("b", {}, panel.title), keysOf(panel));
  const note = panel.note ? make("p", { class: "line" }, panel.note) : null;
  return make("div", {}, title, make("div", { class: "bars" }, panel.rows.flatMap(row)), note);
}

function image(panel, page) {
  const [width, height] = panel.size;
  const unit = Math.max(width, height) / 300;
  const overlay = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
  const list = make("ol", {});
  panel.boxes.forEach((one, i) => {
    const [x, y, right, bottom] = one.box;
    const place = { x, y, width: Math.max(right - x, unit), height: Math.max(bottom - y, unit) };
    const kind = `${one.kind}${one.pressed ? " pressed" : ""}`;
    const look = { ...inColor(one), ...linked(one.text ? `box ${i}` : undefined, page) };
    overlay.append(make("svg:rect", { ...place, class: `seam ${one.kind}` }));
    overlay.append(make("svg:rect", { ...place, class: `box ${kind}`, ...look }));
    if (!one.text) return;
    const value = one.badge ?? list.children.length + 1;
    list.append(make("li", { class: one.kind, ...look, value }, pickable("span", one, one.text, page, one.text)));
    const at = { x: clamp(x, 8 * unit, width - 8 * unit), y: clamp(y, 8 * unit, height - 8 * unit) };
    const click = () => one.pick && page.can(one.pick) && page.set(one.pick);
    const circle = make("svg:circle", { cx: at.x, cy: at.y, r: 8 * unit });
    const number = make("svg:text", { ...at, "font-size": 11 * unit }, String(value));
    overlay.append(make("svg:g", { class: `badge ${kind}`, click, ...look }, circle, number));
  });
  const frame = make("div", { class: "frame" }, imageOf(panel.png, panel.alt), overlay);
  return make("figure", { class: "image" }, frame, captionOf(panel), list.children.length ? list : null);
}

function table({ header, rows }, page) {
  const line = (tag, cells) => make("tr", {}, ...cells.map((text) => make(tag, {}, text)));
  const all = [line("th", header), ...rows.map((cells) => line("td", cells))];
  const toggle = (event) => (page.local.table = event.target.open);
  const attributes = { class: "panel wide", toggle, open: page.local.table ? "" : null };
  return make("details", attributes, make("summary", {}, "The numbers"), make("table", {}, all));
}

const PANELS = { maps, cards, bars, image };
const TOOLS = { make, eightBit, inColor, clamp, short, linked, captionOf, keysOf, shareOf };

// Each is {node, show}: `show` sets what is shown, and greys out what cannot be.
const CONTROLS = {
  select({ trait, options, labels = options, all }, page, named) {
    const change = () => page.set({ [trait]: options[node.selectedIndex] ?? page.local.yours });
    const choices = options.map((_, i) => make("option", {}, String(labels[i])));
    const other = make("option", { hidden: "" });
    const node = make("select", { ...named, change }, choices, other);
    const show = () => {
      const mixed = all && new Set(page.state[all]).size > 1;
      const at = mixed ? -1 : options.indexOf(page.state[trait]);
      const yours = page.state[trait] === page.local.yours;
      if (yours) other.hidden = false; // a reader's picture can be chosen again
      if (yours || at < 0) other.textContent = yours ? page.local.name : mixed ? "(mixed)" : page.state[trait];
      const can = options.map((one, i) => !(choices[i].disabled = !page.can({ [trait]: one })));
      Object.assign(node, {
        selectedIndex: at < 0 ? options.length : at,
        disabled: !can.some((one, i) => one && i !== at),
      });
    };
    return { node, show };
  },

  range({ trait, options, labels = options }, page, named) {
    const output = make("span", { "aria-hidden": true });
    const say = (text) => node.setAttribute("aria-valuetext", (output.textContent = text));
    const input = () => {
      say(labels[+node.value]);
      page.set({ [trait]: options[+node.value] }, false);
    };
    const attributes = { type: "range", min: 0, max: options.length - 1, input, change: () => page.save() };
    const node = make("input", { ...named, ...attributes });
    const show = () => {
      const now = page.state[trait];
      const at = options.indexOf(now); // Python may have set one between
      const value = at < 0 ? options.filter((one) => one < now).length : at;
      const disabled = !options.some((one) => one !== now && page.moves({ [trait]: one }));
      Object.assign(node, { value, disabled });
      say(at < 0 ? short(now) : labels[at]);
    };
    return { node, show, after: output };
  },

  number({ trait }, page, named) {
    const change = () => page.set({ [trait]: Math.round(+node.value) || 0 });
    const node = make("input", { type: "number", min: 0, ...named, change });
    return { node, show: () => Object.assign(node, { value: page.state[trait], disabled: !page.alive }) };
  },

  // A reader's picture, by button, drop or paste, scaled here: only its pixels travel, and nothing is saved.
  file({ side }, page, named) {
    const node = make("input", { type: "file", accept: "image/*", ...named, change: () => take(node.files[0]) });
    let last = 0;
    async function take(picked) {
      if (!picked || node.disabled) return;
      const mine = ++last;
      try {
        const picture = await createImageBitmap(picked);
        if (mine !== last) return; // a later one was faster
        const canvas = make("canvas", { width: side, height: side });
        const pen = canvas.getContext("2d");
        const size = Math.min(picture.width, picture.height);
        Object.assign(pen, { fillStyle: "white", imageSmoothingQuality: "high" }); // below what is transparent
        pen.fillRect(0, 0, side, side);
        pen.drawImage(picture, (picture.width - size) / 2, (picture.height - size) / 2, size, size, 0, 0, side, side);
        page.give(pen.getImageData(0, 0, side, side).data, picked.name, canvas.toDataURL().split(",")[1]);
      } catch {
        page.say(`${picked.name} is no picture that this browser can read: save it as JPEG or PNG first.`);
      }
      node.value = "";
    }
    const only = (event) => event.preventDefault();
    page.root.addEventListener("dragover", only);
    page.root.addEventListener("drop", (event) => (only(event), take(event.dataTransfer.files[0])));
    page.root.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
    return { node, show: () => (node.disabled = !page.alive) };
  },
};

function control(spec, page) {
  const one = CONTROLS[spec.look](spec, page, { "data-key": spec.trait, "aria-label": spec.label });
  return { ...one, below: spec.below, node: make("label", {}, `${spec.label} `, one.node, one.after) };
}

async function render({ model, el }) {
  const spec = model.get("spec");
  const presets = model.get("presets");
  const data = model.get("data");
  const module = new Blob([model.get("page")], { type: "text/javascript" });
  const own = await import(URL.createObjectURL(module));
  const settle = (next, last) => own.settle?.(next, last, data) ?? next;
  const key = (state) => JSON.stringify(Object.entries(own.relevant?.(state, data) ?? state).sort());
  const stored = new Map(presets.map((one) => [key(one.state), one.frame]));
  const pool = JSON.parse(data.pool ?? "[]");
  const pooled = (_, part) => (part?.$ === undefined ? part : pool[part.$]);
  for (const [state, one] of JSON.parse(data.frames ?? "[]", pooled)) stored.set(key(state), one);
  let answer = null; // Python's: {key, frame}
  const lookUp = (state) => (answer?.key === key(state) ? answer.frame : (stored.get(key(state)) ?? null));
  const computes = (state) => own.has?.(state, data) ?? false;
  const frameOf = (state) => lookUp(state) ?? (computes(state) ? own.frame(state, data, TOOLS) : null);
  const has = (state) => computes(state) || lookUp(state) !== null;

  const settled = (changes) => settle({ ...page.state, ...changes }, page.state);
  const read = () => Object.fromEntries(spec.traits.map((name) => [name, model.get(name)]));
  let wanted = read(); // what the controls were last set to; page.state is what is shown
  let frame = frameOf(wanted);
  if (!frame) frame = frameOf((wanted = presets[0].state));
  let asked = null; // what Python has not answered yet
  let [count, scheduled] = [0, false];

  const root = make("section", { class: "explorer", "data-lm-suppress-shortcuts": "true", "aria-label": spec.name });
  const sentence = make("p", { class: "sentence", role: "status" });
  const trouble = make("strong", { class: "trouble", role: "alert" });
  const panels = make("div", { class: "panels" });

  const page = {
    root,
    palettes: Object.fromEntries(Object.entries(spec.palettes).map(([name, text]) => [name, fromBase64(text)])),
    state: wanted,
    local: { yours: spec.yours, name: spec.yours }, // what only this view knows
    thumbs: {}, // title → image
    alive: false, // whether Python has answered
    can: (changes) => page.alive || has(settled(changes)),
    moves: (changes) => key(settled(changes)) !== key(page.state) && page.can(changes),
    say: (text) => (trouble.textContent = text),
    redraw: (local) => (Object.assign(page.local, local), draw()),
    save: () => page.alive && model.save_changes(),
    set(changes, save = true) {
      tell(settle({ ...wanted, ...changes }, wanted), save);
      soon();
    },
    give(pixels, name, picture) {
      Object.assign(page.local, { name, picture });
      answer = null; // it may be of another picture
      tell({ ...wanted, [spec.photo]: spec.yours });
      ask(wanted, pixels);
    },
  };

  const differs = (name) => JSON.stringify(wanted[name]) !== JSON.stringify(model.get(name));
  function tell(state, save = true) {
    wanted = state;
    for (const name of spec.traits.filter(differs)) model.set(name, state[name]);
    if (save) page.save();
  }

  function soon() {
    if (!scheduled) queueMicrotask(update);
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
    if (asked) return void (asked.next = { state, pixels: pixels ?? asked.next?.pixels });
    const id = ++count;
    if (!reach({ id, state, pixels: !!pixels }, pixels && [pixels.buffer])) return back(NEEDS_PYTHON);
    const busy = setTimeout(() => root.classList.add("busy"), BUSY);
    const late = setTimeout(() => answered({ id, error: NO_ANSWER }), PATIENCE);
    asked = { id, state, timers: [busy, late] };
  }

  // A host that has lost its kernel may mark the view so, as JupyterLab does, or refuse the message.
  function reach(message, buffers) {
    try {
      if (!lost()) return (model.send(message, undefined, buffers), true);
    } catch {
      // no kernel
    }
    return awake(false);
  }

  function answered(reply) {
    if (asked?.id !== reply.id) return;
    const { state, next, timers } = asked;
    timers.forEach(clearTimeout);
    root.classList.remove("busy");
    asked = null;
    if (next && (next.pixels || key(next.state) !== key(state))) return ask(next.state, next.pixels);
    if (key(wanted) !== key(state)) return;
    if (reply.error) return back(reply.error);
    answer = { key: key(state), frame: reply.frame };
    show(wanted, reply.frame);
  }

  const buttons = presets.map(({ name, state }) => make("button", { click: () => page.set(state) }, name));
  const controls = spec.controls.map((one) => control(one, page));
  const note = make("p", { class: "line" }, NEEDS_PYTHON);

  function draw() {
    const focused = root.getRootNode().activeElement?.dataset?.key;
    sentence.replaceChildren(frame.headline ? make("strong", {}, frame.headline, " ") : "", frame.sentence);
    const all = own.panels?.(frame, page.state, data, page.local, TOOLS) ?? frame.panels;
    panels.replaceChildren(...all.map(panelOf), ...(frame.table ? [table(frame.table, page)] : []));
    controls.forEach((one) => one.show());
    presets.forEach(({ state }, i) => buttons[i].setAttribute("aria-pressed", key(state) === key(page.state)));
    note.hidden = page.alive || !root.querySelector(".controls :disabled, .panels :disabled");
    if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function panelOf(panel) {
    const node = (PANELS[panel.kind] ?? own[panel.kind])(panel, page, TOOLS);
    node.classList.add("panel", panel.kind, ...["wide", "large"].filter((look) => panel[look]));
    return node;
  }

  const lost = () => root.closest(".jupyter-widgets-disconnected") !== null;
  const look = () => page.alive && reach({ hello: true });
  function awake(now) {
    page.alive = now;
    draw();
    return now;
  }
  function heard(message) {
    if (!message.ready) return answered(message);
    if (page.alive) return;
    awake(true);
    wanted = read();
    soon();
  }
  // What sets several traits, Python or another view, sets them all first.
  const changed = () => queueMicrotask(() => spec.traits.some(differs) && page.set(read()));

  const bar = make("div", { class: "presets", role: "group", "aria-label": "presets" }, buttons);
  const some = (below) => controls.filter((one) => one.below === below).map(({ node }) => node);
  const row = (below) => make("div", { class: "controls" }, some(below));
  root.append(bar, row(false), sentence, trouble, panels, row(true), note);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  for (const event of ["pointerenter", "focusin"]) root.addEventListener(event, look);
  el.append(root);
  draw();
  const listeners = [["msg:custom", heard], ...spec.traits.map((name) => [`change:${name}`, changed])];
  for (const [event, listener] of listeners) model.on(event, listener);
  reach({ hello: true });
  return () => {
    for (const [event, listener] of listeners) model.off?.(event, listener);
  };
}

export default { render };
