// What the ScaleExplorer computes in the page, which is all of it: every channel's scale error at any eps.

const LAST = 65535; // a 16-bit number of a variance is logarithmic from 1 to here; 0 is variance 0
const grouped = (number) => number.toLocaleString("en");
const error = (v, trained, eps) => (eps === trained ? 0 : 100 * (Math.sqrt((v + trained) / (v + eps)) - 1));

let channels = null; // {at: number of its layer, n: its own, v: variance}
function decoded([, , low, high, text], at) {
  const codes = new Uint16Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  return Array.from(codes, (code, n) => ({ at, n, v: code && low * (high / low) ** ((code - 1) / (LAST - 1)) }));
}

export const has = ({ eps }) => eps >= 0 && eps <= 1;

export function frame({ eps }, { layers, limits }, { short }) {
  channels ??= layers.flatMap(decoded);
  const all = channels.map((one) => ({ ...one, e: error(one.v, layers[one.at][1], eps) }));
  const beyond = limits.map(([limit]) => all.filter(({ e }) => Math.abs(e) > limit));
  const own = layers.map((layer) => layer[1]);
  const trained = [...new Set([Math.min(...own), Math.max(...own)])].map((one) => short(one)).join(" to ");
  const some = { all, beyond, headline: `${grouped(beyond[1].length)} channels` };
  const ways = [all.some(({ e }) => e > 0) && "too much", all.some(({ e }) => e < 0) && "too little"].filter(Boolean);
  const of = `of ${grouped(all.length)} are scaled`;
  if (!ways.length) return { ...some, sentence: `${of} wrongly: eps ${trained} is that of the training.` };
  const infinite = all.filter(({ e }) => e === Infinity).length;
  const how = `${ways.join(" or ")}${infinite ? `, ${grouped(infinite)} infinitely` : ""}`;
  return { ...some, sentence: `${of} over 10 % ${how}: eps ${short(eps)}, trained with ${trained}.` };
}

export function panels({ all, beyond }, { eps, layer }, { layers, limits, axes: { x, y }, of }, local, { short }) {
  const chosen = layers.findIndex(([name]) => name === layer);
  const trained = layers[Math.max(chosen, 0)][1];
  const inside = (some) => some.filter(({ at }) => at === chosen);
  const xs = Array.from({ length: 80 }, (_, i) => x.low * (x.high / x.low) ** (i / 79));
  const curve = xs.map((v) => Math.abs(error(v, trained, eps)));
  const above = curve.map((e) => Math.max(1, e));
  const area = (kind, floor, ys) => ({ kind, x: [x.low, ...xs, x.high], y: [floor, ...ys, floor] });
  // How many channels have about this variance: a hill of at most half the height.
  const hill = (kind, some) => {
    const counts = xs.map(() => 0);
    for (const { v } of some) counts[Math.round(79 * Math.max(0, Math.log(v / x.low) / Math.log(x.high / x.low)))] += 1;
    const top = 2 * Math.max(...counts, 1);
    const heights = counts.map((count) => y.low * (y.high / y.low) ** (count / top));
    return area(kind, y.low, heights);
  };
  const dots = (kind, some) => ({
    kind,
    x: some.map(({ v }) => v),
    y: some.map(({ e }) => Math.abs(e)),
    name(i) {
      const { at, n, v, e } = some[i];
      const off = `off by ${e > 0 ? "+" : ""}${Number.isFinite(e) ? +e.toPrecision(2) : "∞"} %`;
      return `${layers[at][0]}, channel ${n}: variance ${short(v)}, scale ${short((v + eps) ** -0.5)}, ${off}`;
    },
    pick: (i) => ({ layer: layers[some[i].at][0] }),
  });
  const lines = [
    ...limits.map(([limit]) => ({ kind: "thin", x: [x.low, x.high], y: [limit, limit] })),
    hill("filled", all),
    hill("warm", inside(all)),
    area("gap", 1, above),
    { kind: "dashed", x: [trained, trained], y: [y.low, y.high] },
    { kind: "ink", x: xs, y: curve },
  ];
  const keys = { filled: "all channels", ink: `at eps ${short(eps)}`, dashed: `variance ${short(trained)}` };
  if (chosen >= 0) keys.warm = layer;
  const note = "Point at a channel; a click picks its layer.";
  const both = [dots("many", all), dots("chosen", inside(all))];
  const plot = { kind: "plot", title: of, note, x, y, dots: both, lines, keys };
  const card = ([, words], i) => {
    const count = [beyond[i], all].map((some) => grouped(inside(some).length)).join(" of ");
    const text = `by more than ${words}${chosen < 0 ? "" : `; ${count} in the layer`}`;
    return [{ title: grouped(beyond[i].length), share: beyond[i].length / all.length, text }];
  };
  const rows = limits.map(card);
  const still = all.filter(({ v }) => v === 0).length;
  const scale = `scale ${eps ? short(eps ** -0.5) : "infinite"}, trained with ${short(trained ** -0.5)}`;
  if (still) rows.push([{ title: grouped(still), text: `of variance 0: ${scale}`, warn: !eps }]);
  return [plot, { kind: "cards", large: true, title: "Channels whose scale is off", rows }];
}
