// Log-log charts of a sweep with Observable Plot, and saving them.
import { apart } from './labels.js';
import { Plot, d3 } from './vendor/charts.js';

// Figures have the marks of the language that they stand in, as everywhere around them.
const LOCALES = { en: { decimal: '.', thousands: ',' }, de: { decimal: ',', thousands: '.' } };
const speak = (element) => {
  const code = element.closest('[lang]')?.lang.slice(0, 2);
  d3.formatDefaultLocale({ ...(LOCALES[code] ?? LOCALES.en), grouping: [3], currency: ['', ''] });
};
const plain = (n) => d3.format('~g')(n);

// A description is: { kind: 'time' | 'bytes', label, width, series: [{ name, colour, dash, overlay,
//   points: [{ n, y, lo, hi, tip }], predicted: [{ n, y }] }], ends: [{ n, name, colour }] }
// Colours are CSS custom properties, so that a chart follows the theme without being drawn anew.
export function drawChart(element, chart) {
  speak(element);
  if (chart.kind === 'curves') return drawCurves(element, chart);
  if (chart.kind === 'bands') return drawBands(element, chart);
  const points = chart.series.flatMap((s) => s.points.map((p) => ({ ...p, series: s })));
  const ends = labelled(chart);
  const lengths = [...new Set(points.map((p) => p.n))].sort((a, b) => a - b);
  const predicted = chart.series.flatMap((s) => s.predicted);
  const values = [...points.map((p) => p.y), ...predicted.map((p) => p.y)];
  // Everything beside the field is as large as its letters, which grow with the screen.
  const { size, across } = letters(element);
  const marginRight = fitted(ends, chart.width * 0.42 - GAP, across) + GAP + 4;
  const svg = Plot.plot({
    width: chart.width,
    height: Math.round(Math.max(300, chart.width * 0.62)),
    marginTop: 14,
    marginLeft: 5.2 * size,
    marginRight,
    marginBottom: 3.9 * size,
    style: { background: 'transparent', color: 'var(--ink)', fontFamily: 'var(--sans)', fontSize: `${size}px`, overflow: 'visible' },
    x: { type: 'log', base: 2, label: chart.xLabel, labelAnchor: 'center', labelArrow: false, labelOffset: 3.2 * size, ticks: thinned(lengths, (chart.width - 5.2 * size - marginRight) / (4.9 * size)), tickFormat: (n) => d3.format(',')(n) },
    y: {
      type: 'log', label: null, grid: true, ticks: chart.kind === 'bytes' ? powers(values, 4) : powers(values, 10),
      domain: bounds(values, chart.kind === 'bytes' ? 4 : 10), tickFormat: chart.kind === 'bytes' ? bytes : milliseconds,
    },
    marks: [
      ...chart.series.flatMap((s) => [
        Plot.line(s.predicted, { x: 'n', y: 'y', stroke: s.colour, strokeDasharray: '1 4', strokeWidth: 1.25 }),
        Plot.line(s.points, { x: 'n', y: 'y', stroke: s.colour, strokeWidth: s.overlay ? 1 : 1.75, strokeDasharray: s.dash, strokeOpacity: s.overlay ? 0.6 : 1 }),
      ]),
      Plot.ruleX(points.filter((p) => p.hi > p.lo), { x: 'n', y1: 'lo', y2: 'hi', stroke: (p) => p.series.colour, strokeOpacity: 0.5 }),
      Plot.dot(points, {
        x: 'n', y: 'y', r: 3.2,
        stroke: (p) => p.series.colour,
        fill: (p) => (p.series.overlay ? 'var(--paper)' : p.series.colour),
      }),
      Plot.text(ends, { x: 'n', y: 'y', text: 'name', fill: (p) => p.colour, textAnchor: 'start', dx: GAP }),
      Plot.tip(points, Plot.pointer({ x: 'n', y: 'y', title: 'tip', fill: 'var(--sheet)', stroke: 'var(--line)', fontSize: 12 })),
    ],
  });
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', chart.label);
  element.replaceChildren(svg);
  spread(svg, ends, size, +svg.getAttribute('height'));
}

// Curves of runs: { kind: 'curves', label, width, share, unit: 'count' | 'seconds' | 'distance', xLabel, rule: { y, name },
//   series: [{ name, colour, dash, line: [[n, y]], dots: [{ n, y, tip }] }] }
// A line is what was seen on the way, dots are what was judged; `share` is an axis from 0 to 1.
function drawCurves(element, chart) {
  const { size, across } = letters(element);
  const series = chart.series.filter((s) => s.line.length || s.dots.length);
  const ends = series.map((s) => {
    const [n, y] = s.dots.length ? [s.dots.at(-1).n, s.dots.at(-1).y] : s.line.at(-1);
    return { n, y, name: s.name, colour: s.colour };
  });
  const dots = series.flatMap((s) => s.dots.map((d) => ({ ...d, series: s })));
  const far = chart.unit === 'distance';
  const marginRight = fitted(ends, chart.width * 0.42 - GAP, across) + GAP + 4;
  const marginLeft = (chart.share ? 3.6 : 3) * size;
  const ticks = Math.max(2, Math.floor((chart.width - marginLeft - marginRight) / (5.5 * size)));
  const top = Math.max(...series.flatMap((s) => [...s.line.map((p) => p[1]), ...s.dots.map((d) => d.y)]));
  const distances = [...new Set(dots.map((d) => d.n))].sort((a, b) => a - b);
  const svg = Plot.plot({
    width: chart.width,
    height: Math.round(Math.max(240, chart.width * 0.55)),
    marginTop: 14,
    marginLeft,
    marginRight,
    marginBottom: 3.9 * size,
    style: { background: 'transparent', color: 'var(--ink)', fontFamily: 'var(--sans)', fontSize: `${size}px`, overflow: 'visible' },
    x: {
      label: chart.xLabel, labelAnchor: 'center', labelArrow: false, labelOffset: 3.2 * size,
      ...(far
        ? { type: 'log', base: 2, ticks: thinned(distances, ticks), tickFormat: (n) => d3.format(',')(n) }
        : { ticks, domain: [0, Math.max(...series.flatMap((s) => [...s.line.map((p) => p[0]), ...s.dots.map((d) => d.n)]))], tickFormat: chart.unit === 'seconds' ? (n) => `${plain(n)} s` : large }),
    },
    y: { label: null, grid: true, ticks: 5, domain: [0, chart.share ? 1 : top], tickFormat: chart.share ? (y) => `${Math.round(100 * y)} %` : plain },
    marks: [
      chart.rule && Plot.ruleY([chart.rule.y], { stroke: 'var(--faint)', strokeDasharray: '2 3' }),
      chart.rule && Plot.text([chart.rule], { y: 'y', text: 'name', frameAnchor: 'left', textAnchor: 'start', dy: -0.6 * size, fill: 'var(--faint)' }),
      ...series.flatMap((s) => [
        Plot.line(s.line, { stroke: s.colour, strokeWidth: 1, strokeOpacity: 0.55, strokeDasharray: s.dash }),
        Plot.line(s.dots, { x: 'n', y: 'y', stroke: s.colour, strokeWidth: 1.75, strokeDasharray: s.dash }),
      ]),
      Plot.dot(dots, { x: 'n', y: 'y', r: 2.4, fill: (p) => p.series.colour }),
      Plot.text(ends, { x: 'n', y: 'y', text: 'name', fill: (p) => p.colour, textAnchor: 'start', dx: GAP }),
      Plot.tip(dots, Plot.pointer({ x: 'n', y: 'y', title: 'tip', fill: 'var(--sheet)', stroke: 'var(--line)', fontSize: 12 })),
    ],
  });
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', chart.label);
  element.replaceChildren(svg);
  const texts = [...svg.querySelectorAll('g[aria-label="text"]')].at(-1);
  if (texts) spread(texts, ends, size, +svg.getAttribute('height'));
}

// What is alive over the dispatches of a step, in bands upon each other: { kind: 'bands', label, width, top, colours, xLabel,
//   columns: [[bytes of each band]], dispatches, peak }
function drawBands(element, chart) {
  const { size } = letters(element);
  const scale = chart.dispatches / chart.columns.length;
  // Round numbers of bytes are powers of two.
  const step = 2 ** Math.ceil(Math.log2(Math.max(chart.top, 4) / 4));
  const marks = chart.colours.map((fill, band) => {
    const rows = chart.columns.map((column, at) => {
      const from = d3.sum(column.slice(0, band));
      return { n: at * scale, from, to: from + column[band] };
    });
    return Plot.areaY(rows, { x: 'n', y1: 'from', y2: 'to', fill, fillOpacity: 0.85, curve: 'step' });
  });
  const svg = Plot.plot({
    width: chart.width,
    height: Math.round(Math.max(150, chart.width * 0.4)),
    marginLeft: 5.6 * size,
    marginBottom: 3.9 * size,
    style: { background: 'transparent', color: 'var(--ink)', fontFamily: 'var(--sans)', fontSize: `${size}px`, overflow: 'visible' },
    x: { label: chart.xLabel, labelAnchor: 'center', labelArrow: false, labelOffset: 3.2 * size, domain: [0, chart.dispatches], ticks: Math.floor(chart.width / (6 * size)) },
    y: { label: null, grid: true, ticks: d3.range(0, chart.top, step), domain: [0, chart.top], tickFormat: bytes },
    marks: [...marks, Plot.ruleX([chart.peak], { stroke: 'var(--ink)', strokeDasharray: '2 3' })],
  });
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', chart.label);
  element.replaceChildren(svg);
}

// 1500 as 1,500 and 2000000 as 2M.
function large(n) {
  return n < 1e5 ? d3.format(',')(n) : d3.format('~s')(n);
}

// Between the end of a line and its label.
const GAP = 9;

// The size of a chart's letters in pixels, and how wide a text is in them.
function letters(element) {
  const size = 0.75 * parseFloat(getComputedStyle(document.documentElement).fontSize);
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = `${size}px ${getComputedStyle(element).fontFamily}`;
  return { size, across: (text) => pen.measureText(text).width };
}

// Breaks the labels that are wider than `most` into two lines; the width that all of them take.
function fitted(ends, most, across) {
  for (const end of ends) {
    const words = end.name.split(' ');
    if (across(end.name) <= most || words.length < 2) continue;
    const halves = words.slice(1).map((_, at) => [words.slice(0, at + 1).join(' '), words.slice(at + 1).join(' ')]);
    const wide = ([first, second]) => Math.max(across(first), across(second));
    end.name = halves.reduce((best, next) => (wide(next) < wide(best) ? next : best)).join('\n');
  }
  return Math.max(0, ...ends.flatMap((end) => end.name.split('\n').map(across)));
}

// Direct labels: one per series, where its line ends, the predicted part included.
function labelled(chart) {
  return chart.series
    .filter((s) => s.points.length && !s.overlay)
    .map((s) => ({ ...(s.predicted.at(-1) ?? s.points.at(-1)), name: s.name, colour: s.colour }));
}

// The range of the values, out to whole powers of `base`.
function bounds(values, base) {
  const log = (v) => Math.log(v) / Math.log(base);
  const low = Math.floor(log(Math.min(...values)) + 1e-9);
  const high = Math.ceil(log(Math.max(...values)) - 1e-9);
  return [base ** low, base ** Math.max(high, low + 1)];
}

// Powers of `base` over the range, no more than eight.
function powers(values, base) {
  const [low, high] = bounds(values, base).map((v) => Math.round(Math.log(v) / Math.log(base)));
  const step = Math.ceil((high - low + 1) / 8);
  return d3.range(low, high + 1, step).map((exponent) => base ** exponent);
}

// Labels that would lie on one another are moved apart, above the words of the axis.
function spread(svg, ends, size, height) {
  const texts = [...svg.querySelectorAll(svg.matches('g') ? 'text' : '[aria-label="text"] text')].slice(0, ends.length);
  const labels = texts
    .map((text, at) => {
      const [, x, y] = /translate\(([-\d.e]+),\s*([-\d.e]+)\)/.exec(text.getAttribute('transform')) ?? [];
      return { text, x: Number(x), y: Number(y), tall: ends[at].name.split('\n').length * 1.2 * size };
    })
    .filter((label) => Number.isFinite(label.y));
  for (const [at, y] of apart(labels, 0, height - 3.4 * size).entries()) {
    labels[at].text.setAttribute('transform', `translate(${labels[at].x},${y})`);
  }
}

// The lengths that have a tick where `room` of them fit, the longest among them.
function thinned(lengths, room) {
  const step = Math.max(1, Math.ceil(lengths.length / Math.max(room, 1)));
  return lengths.filter((_, i) => (lengths.length - 1 - i) % step === 0);
}

function milliseconds(ms) {
  if (ms >= 1000) return `${plain(ms / 1000)} s`;
  return ms >= 0.001 ? `${plain(ms)} ms` : `${plain(ms * 1000)} µs`;
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${d3.format('.3~g')(count)} ${units[unit]}`;
}

// Custom properties have no meaning outside the page, so a saved chart carries computed colours and fonts.
function standalone(element) {
  const live = element.querySelector('svg');
  if (!live) return null;
  const copy = live.cloneNode(true);
  const from = [live, ...live.querySelectorAll('*')];
  const to = [copy, ...copy.querySelectorAll('*')];
  for (const [i, node] of from.entries()) {
    const style = getComputedStyle(node);
    for (const name of ['fill', 'stroke', 'font-family', 'font-size']) to[i].style.setProperty(name, style.getPropertyValue(name));
  }
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.style.background = getComputedStyle(document.documentElement).backgroundColor;
  return copy;
}

export async function saveChart(element, name, kind) {
  const svg = standalone(element);
  if (!svg) return;
  const blob = new Blob([new XMLSerializer().serializeToString(svg)], { type: 'image/svg+xml' });
  if (kind === 'svg') return globalThis.attentionLabHost.saveBlob(`${name}.svg`, blob);
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = svg.viewBox.baseVal.width * 2;
  canvas.height = svg.viewBox.baseVal.height * 2;
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  canvas.toBlob((png) => globalThis.attentionLabHost.saveBlob(`${name}.png`, png), 'image/png');
}
