// What the NormExplorer computes in the page: any of three kinds in each of five stages, from 363 stored maps.

const maps = {}; // stage → the numbers of its maps
const freezes = (state) => [state.kind_a, ...state.kinds_b].includes("frozen");

// "All stages" leads and follows; a channel belongs to its stage and network.
export function settle(next, last) {
  const state = { ...next };
  if (state.kind_b !== last.kind_b && `${state.kinds_b}` === `${last.kinds_b}`)
    state.kinds_b = state.kinds_b.map(() => state.kind_b);
  if (new Set(state.kinds_b).size === 1) state.kind_b = state.kinds_b[0];
  if (state.stage !== last.stage || state.network !== last.network) state.channel = -1;
  return state;
}

// Without a channel it does not matter which stage is open, and without frozen layers not what their eps is.
export function relevant(state, data) {
  const stage = state.channel < 0 && data.stages.includes(state.stage) ? null : state.stage;
  return { ...state, kind_b: null, stage, eps: freezes(state) ? state.eps : null };
}

export const has = (state, data) =>
  state.network === data.network &&
  state.photo === data.photo &&
  data.stages.includes(state.stage) &&
  state.channel < 0 &&
  state.kind_a === data.kinds[0] &&
  (state.eps === data.eps || !freezes(state)) &&
  state.kinds_b.every((kind) => data.kinds.includes(kind));

// The number of B's kinds up to a stage, one digit each.
const digits = (state, data, last) =>
  state.kinds_b.slice(0, last + 1).reduce((number, kind) => data.kinds.length * number + data.kinds.indexOf(kind), 0);

export function frame(state, data, { eightBit, short }) {
  const stages = data.a.map((a, i) => {
    const number = digits(state, data, i);
    const size = a.shape[0] * a.shape[1];
    maps[i] ??= eightBit({ values: data.d[i] });
    const values = maps[i].subarray(number * size, (number + 1) * size);
    const reach = data.reach[i][number];
    const d = { title: "A − B", shape: a.shape, values, low: -reach, high: reach, diverging: true };
    return { a, d, relative: data.relative[i][number] };
  });
  const sentence = "A and B hold the same layers, so nothing can differ.";
  if (state.kinds_b.every((kind) => kind === state.kind_a)) return { sentence, stages, partial: true };
  const from = data.stages.find((_, i) => stages[i].relative > data.rounding);
  const main = `Main cause: ${data.causes[data.cause[digits(state, data, 4)]]}. A and B part from ${from} on, in`;
  const part = `${data.stages.at(-1)} by ${short(stages.at(-1).relative, 2)} of max|A|.`;
  return { sentence: `${main} ${part}`, stages, partial: true };
}

const times = (relative, rounding) =>
  relative <= rounding ? "rounding" : `≥ ${(+(relative / rounding).toPrecision(2)).toLocaleString("en")} × rounding`;

// A, and B = A − (A − B), on one scale.
function both({ a, d }, eightBit) {
  const numbers = (map) => Float64Array.from(eightBit(map), (value) => map.low + ((map.high - map.low) * value) / 254);
  const [first, difference] = [numbers(a), numbers(d)];
  const second = first.map((value, i) => value - difference[i]);
  const [low, high] = [Math.min(...first, ...second), Math.max(...first, ...second)];
  const scaled = (values) => Uint8Array.from(values, (v) => Math.round((254 * (v - low)) / (high - low || 1)));
  return [first, second].map((values) => ({ shape: a.shape, values: scaled(values), low, high }));
}

export function panels(frame, state, data, local, { eightBit, short }) {
  const share = (relative) => Math.log10(Math.min(Math.max(relative, 1e-8), 10) / 1e-8) / 9;
  const card = (stage, i) => ({
    title: stage,
    map: frame.stages[i].d,
    share: share(frame.stages[i].relative),
    text: times(frame.stages[i].relative, data.rounding),
    pick: { stage, channel: -1 },
    pressed: stage === state.stage,
    select: { trait: "kinds_b", index: i, label: `B: ${stage}`, options: data.all },
  });
  const open = data.stages.indexOf(state.stage);
  const opened = frame.opened ?? frame.stages[open];
  const [a, b] = both(opened, eightBit);
  const what = state.channel < 0 ? "mean of the channels" : `channel ${state.channel}`;
  const scale = `${short(a.low, 2)} … ${short(a.high, 2)}`;
  const yours = state.photo === local.yours;
  const png = (yours && local.picture) || (frame.photo ?? data.picture);
  const apart = opened.relative <= data.rounding ? "rounding: blank" : `±${short(opened.d.high, 2)}`;
  const maps = [
    { title: "A", note: scale, ...a },
    { title: "B", note: scale, ...b },
    { ...opened.d, title: "A − B", note: apart },
    { title: yours ? local.name : state.photo, png },
  ];
  const shown = [
    { kind: "cards", wide: true, floor: share(data.rounding), rows: [data.stages.map(card)] },
    { kind: "maps", wide: true, maps, divider: true, note: `${state.stage}, ${what}` },
  ];
  const chosen = (n) => ({ pick: { channel: n }, pressed: n === state.channel });
  const channel = ([n, text, title = n]) => ({ title: `${title}`, text: `${text}`, ...chosen(n) });
  const rows = [[[-1, "of all", "mean"], ...(frame.channels?.[open] ?? [])].map(channel)];
  if (rows[0].length > 1) shown.push({ kind: "cards", wide: true, title: "The channels that differ most", rows });
  return shown;
}
