// What the BatchExplorer computes in the page: any batch of the channels that it has, and of those it asked for.

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const short = (number) => String(+number.toPrecision(2)).replace("-", "−");
const percent = (number) => number.toFixed(0);
const REACH = 125; // % of within + between at the end of a bar
const line = (kind, x, y, link) => ({ kind, x, y, link });
const axis = (label, low, high, hidden) => ({ label, low, high, hidden });
const small = (title, note, rest) => ({ kind: "plot", width: 280, height: 200, title, note, ...rest });

const answered = {}; // channels from Python, by stage and number
const find = ({ stage, channel }, { channels }) =>
  channels[stage]?.find((one) => one.channel === channel) ?? answered[`${stage} ${channel}`];

export function settle(next, last, { channels }) {
  return next.stage === last.stage ? next : { ...next, channel: channels[next.stage]?.[0]?.channel ?? 0 };
}
// There is one batch of all images.
export const relevant = (state, { count }) => ({ ...state, batch: state.size === count ? 0 : state.batch });
export const has = (state, data) =>
  !!find(state, data) && state.size >= 1 && state.size <= data.count && !!data.orders[state.batch];

// In percent of within + between; n / (n − 1), for running_var takes the unbiased variance of n values.
function entering(one, size, parts) {
  const unbiased = 1 + 1 / (size * one.pixels - 1);
  return parts.map((part) => (100 * unbiased * part) / (one.within + one.between));
}
const average = (one, size) => entering(one, size, [one.within, (1 - 1 / size) * one.between]);
function moments(one, images) {
  const means = images.map((i) => one.means[i]);
  const center = mean(means);
  return [center, mean(images.map((i) => one.variances[i])), mean(means.map((m) => (m - center) ** 2))];
}

export function frame(state, data) {
  const one = find(state, data);
  const [within, between] = average(one, state.size);
  const all = (100 * one.between) / (one.within + one.between);
  const parts = `${percent(within)} % within the images, ${percent(between)} of ${percent(all)} % between them`;
  const sentence = `of within + between: ${parts}.`;
  return { one, headline: `running_var → ${percent(within + between)} %`, sentence };
}

export function panels({ one }, state, data) {
  answered[`${state.stage} ${one.channel}`] = one;
  const images = data.orders[state.batch].slice(0, state.size);
  const title = "Channels with most of their variance between images; the last one has least";
  const card = ({ channel, within, between }) => {
    const text = `${percent((100 * between) / (within + between))} % between`;
    return { title: `${channel}`, text, pick: { channel }, pressed: channel === one.channel };
  };
  const channels = { kind: "cards", wide: true, title, rows: [data.channels[state.stage].map(card)] };
  return [law(one, images, data), thumbnails(images, data), histogram(one, images), cloud(one, state, data), channels];
}

function law(one, images, { count }) {
  const of = (some) => entering(one, some.length, moments(one, some).slice(1));
  const row = (label, [within, between]) => {
    const text = `${percent(within + between)} % = ${percent(within)} within + ${percent(between)} between`;
    return { label, first: within / REACH, share: (within + between) / REACH, text };
  };
  const [stored] = entering(one, Infinity, [one.running_var]);
  const rows = [
    row("this batch", of(images)),
    row(`average batch of ${images.length}`, average(one, images.length)),
    row(`all ${count} images`, average(one, count)),
    { label: "stored", share: 0, floor: stored / REACH, text: `${percent(stored)} %` },
  ];
  const last = images.length > 1 ? `One image before: ${of(images.slice(0, -1)).map(percent).join(" + ")} %. ` : "";
  const note = `${last}Stored: the network's running_var, from the images that it was trained on.`;
  const keys = { cool: "within the images", warm: "between them" };
  return { kind: "bars", wide: true, title: "What enters running_var", keys, rows, note };
}

function thumbnails(images, { thumbnails: pictures, count }) {
  const linked = (i) => (images.includes(i) ? { link: i } : { faint: true });
  const rows = [pictures.map((png, i) => ({ title: `image ${i}`, png, ...linked(i) }))];
  if (images.length < count) rows.push([{ title: "+ add one image", pick: { size: images.length + 1 } }]);
  return { kind: "cards", thumbs: true, title: `The batch: ${images.length} of ${count}`, rows };
}

function histogram(one, images) {
  const all = Uint8Array.from(atob(one.histograms), (c) => c.charCodeAt(0));
  const bins = all.length / one.means.length;
  const [low, high] = one.ends;
  const xs = Array.from({ length: bins }, (_, i) => low + ((high - low) * (i + 0.5)) / bins);
  const shares = images.map((i) => [...all.subarray(i * bins, (i + 1) * bins)]);
  const merged = xs.map((_, bin) => mean(shares.map((some) => some[bin])));
  const means = images.map((i) => one.means[i]);
  const name = (i) => `image ${images[i]}: mean ${short(means[i])}, variance ${short(one.variances[images[i]])}`;
  return small("Its inputs", "Point at an image, or at its mean (a dot).", {
    x: axis(`channel ${one.channel}, input`, low, high),
    y: axis("pixels", 0, 256, true),
    dots: [{ kind: "chosen", radius: 3.5, x: means, y: means.map(() => 0), name }],
    lines: [
      line("filled", [low, ...xs, high], [0, ...merged, 0]),
      ...shares.map((share, i) => line("thin", xs, share, images[i])),
      line("dashed", [one.running_mean, one.running_mean], [0, 256]),
    ],
    keys: { filled: "merged", dashed: "running mean" },
  });
}

// Each batch by its mean and σ, in running σ around the stored ones; a circle: train and eval mode differ by so much.
function cloud(one, { size, batch }, { orders }) {
  const [running, reach] = [Math.sqrt(one.running_var + one.eps) || 1, one.reach];
  const at = orders.map((order) => {
    const [center, within, between] = moments(one, order.slice(0, size));
    return [(center - one.running_mean) / running, Math.sqrt(within + between + one.eps) / running];
  });
  const half = (reach * 158) / 224; // of the height, in running σ: a circle is round
  const low = Math.max(0, 1 - half);
  const turns = Array.from({ length: 73 }, (_, i) => (i * Math.PI) / 36);
  const ellipse = (kind, x, y) => {
    const [across, up] = [(t) => x * reach * Math.cos(t), (t) => 1 + y * reach * Math.sin(t)];
    return line(kind, turns.map(across), turns.map(up));
  };
  const group = (kind, radius, some) => {
    const [x, y] = [0, 1].map((part) => some.map((i) => at[i][part]));
    const name = (i) => `batch ${some[i]}: mean off by ${short(x[i])} running σ, σ ${short(y[i])} times it`;
    return { kind, radius, x, y, name, pick: (i) => ({ batch: some[i] }) };
  };
  return small(`Batches of ${size}`, "A click loads a batch.", {
    x: axis("mean off, in running σ", -reach, reach),
    y: axis("σ / running σ", low, low + 2 * half),
    dots: [group("many", 3, [...orders.keys()]), group("chosen", 5, [batch])],
    lines: [ellipse("thin", 0.5, 0.5), ellipse("thin", 1, 1), ellipse("ink", 0.1, 0), ellipse("ink", 0, 0.1)],
    keys: { warm: "this batch", ink: "stored" },
  });
}
