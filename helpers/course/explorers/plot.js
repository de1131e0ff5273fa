// A panel of curves and dots, for the explorers that compute in the page. Its tools are explorer.js's.

const MARGIN = { left: 46, right: 10, top: 8, bottom: 34 };

function ticks({ low, high, log }) {
  const range = (from, to, step) =>
    Array.from({ length: Math.floor((to - from) / step + 1e-9) + 1 }, (_, i) => from + step * i);
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    return range(first, last, Math.ceil((last - first + 1) / 6)).map((power) => 10 ** power);
  }
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  return range(step * Math.ceil(low / step - 1e-9), high, step);
}

// {x, y: {label, low, high, log}, lines: [{x, y, kind, link}], dots: [{x, y, kind, name: i → words, pick: i → changes}],
// keys, note, width, height}. Dots are drawn on a canvas, for there may be thousands; the nearest to the pointer says its
// name, and a click picks it.
export function plot(panel, page, { make, inColor, clamp, short, linked, captionOf, keysOf, shareOf }) {
  const { width = 400, height = 230 } = panel;
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : (v) => v;
    const [low, high] = [f(axis.low), f(axis.high)];
    return (v) => from + ((to - from) * (clamp(f(v), low, high) - low)) / (high - low || 1);
  };
  const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
  const [x, y] = [scale(panel.x, left, right), scale(panel.y, bottom, MARGIN.top)];
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": panel.title });
  const path = (d, kind, more) => svg.append(make("svg:path", { d, class: kind, ...more }));
  const write = (text, at) => svg.append(make("svg:text", at, text));
  path(`M${left} ${MARGIN.top}V${bottom}H${right}`, "axis");
  for (const tick of ticks(panel.x)) {
    path(`M${x(tick)} ${bottom}v4`, "axis");
    write(short(tick), { x: x(tick), y: bottom + 15, "text-anchor": "middle" });
  }
  for (const tick of panel.y.hidden ? [] : ticks(panel.y)) {
    path(`M${left - 4} ${y(tick)}h4`, "axis");
    write(short(tick), { x: left - 6, y: y(tick) + 4, "text-anchor": "end" });
  }
  write(panel.x.label, { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" });
  const turned = `translate(11 ${(MARGIN.top + bottom) / 2}) rotate(-90)`;
  write(panel.y.label, { transform: turned, "text-anchor": "middle" });
  for (const one of panel.lines ?? []) {
    const points = one.x.map((v, i) => `${x(v).toFixed(1)} ${y(one.y[i]).toFixed(1)}`);
    path(`M${points.join("L")}`, `curve ${one.kind}`, { ...inColor(one), ...linked(one.link, page) });
  }
  const canvas = make("canvas", { width: 2 * width, height: 2 * height, "aria-hidden": true });
  const pen = canvas.getContext("2d");
  const places = new Map(); // dots in one place are drawn once; of two groups the later one answers
  for (const group of panel.dots ?? []) {
    pen.fillStyle = { many: "#5b8db880", chosen: "#d55e00cc" }[group.kind] ?? "#0072b2";
    const own = new Map();
    group.x.forEach((value, i) => {
      const at = [x(value), y(group.y[i])];
      own.set(`${at.map(Math.round)}`, [...at, group, i]);
    });
    for (const [place, one] of own) {
      places.set(place, one);
      pen.beginPath();
      pen.arc(2 * one[0], 2 * one[1], 2 * (group.radius ?? 2.5), 0, 7);
      pen.fill();
    }
  }
  const readout = make("output", { class: "line", "aria-live": "off" }, panel.note ?? "");
  const ring = make("svg:circle", { class: "ring", r: 6, cx: -20, cy: -20 });
  svg.append(ring);
  const nearest = (event) => {
    const [across, down] = shareOf(event, svg.getBoundingClientRect());
    const distance = ([a, b]) => (a - across * width) ** 2 + (b - down * height) ** 2;
    const near = [...places.values()].reduce((best, one) => (distance(one) < distance(best) ? one : best), [-1e9, 0]);
    return distance(near) > 400 ? [] : near;
  };
  const pointermove = (event) => {
    const [cx, cy, group, i] = nearest(event);
    if (!group?.name) return;
    for (const [name, value] of Object.entries({ cx, cy })) ring.setAttribute(name, value);
    readout.textContent = group.name(i);
  };
  const click = (event) => {
    const [, , group, i] = nearest(event);
    if (group?.pick && page.can(group.pick(i))) page.set(group.pick(i));
  };
  const frame = make("div", { class: "frame", pointermove, click }, canvas, svg);
  return make("figure", { class: "plot" }, captionOf({ title: panel.title }, keysOf(panel)), frame, readout);
}
