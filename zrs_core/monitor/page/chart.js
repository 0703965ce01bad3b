// The lag over the last hour, drawn.

import { drawn } from "./elements.js";
import { minute } from "./words.js";

const HOUR = 3600;
const HEIGHT = 220;
const LEFT = 64;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 26;

// Less than this fills no chart: nobody is to be alarmed by a few milliseconds.
const LEAST = 0.1;

// What the numbers beside the chart count, and up to how many seconds.
const UNITS = [
  [0.001, "ms", 1],
  [1, "s", 120],
  [60, "min", 7200],
  [3600, "h", Infinity],
];

// The most that was seen in one of the samples, as [time, seconds]; null if no lag was known.
export function most(samples) {
  return samples.reduce(
    (found, [time, lag]) => (lag !== null && (!found || lag > found[1]) ? [time, lag] : found),
    null,
  );
}

// An image of so many pixels in width. Samples are [time, lag or null, ...]; a line joins those
// between which no more than `gap` seconds are, and an hour ends at `now`.
export function chart(samples, now, gap, width, description) {
  const peak = Math.max(LEAST, most(samples)?.[1] ?? 0);
  const [unit, name] = UNITS.find(([, , until]) => peak < until);
  const scale = steps(peak / unit);
  const highest = scale[scale.length - 1] * unit;
  const x = (time) => LEFT + (1 - (now - time) / HOUR) * (width - LEFT - RIGHT);
  const y = (lag) => TOP + (1 - Math.max(lag, 0) / highest) * (HEIGHT - TOP - BOTTOM);
  const minutes = width < 520 ? 20 : 10;
  const first = Math.ceil((now - HOUR) / (minutes * 60));
  const ticks = [...Array(60 / minutes).keys()].map((each) => (first + each) * minutes * 60);
  const column = HOUR / (width - LEFT - RIGHT);
  const lines = joined(perColumn(samples, x), Math.max(gap, 3 * column));
  return drawn(
    "svg",
    {
      width,
      height: HEIGHT,
      viewBox: `0 0 ${width} ${HEIGHT}`,
      role: "img",
      "aria-labelledby": "chart-title",
      "aria-describedby": "chart-description",
    },
    drawn("title", { id: "chart-title" }, "Lag over the last hour"),
    drawn("desc", { id: "chart-description" }, description),
    scale.map((number) =>
      drawn("path", { class: "grid", d: `M${LEFT} ${y(number * unit)}H${width - RIGHT}` }),
    ),
    scale.map((number) =>
      drawn(
        "text",
        { x: LEFT - 8, y: y(number * unit) + 4, "text-anchor": "end" },
        `${Number(number.toPrecision(3))} ${name}`,
      ),
    ),
    ticks.map((time) =>
      drawn("text", { x: x(time), y: HEIGHT - 6, "text-anchor": "middle" }, minute(time)),
    ),
    drawn("path", { class: "area", d: lines.map((line) => area(line, x, y)).join("") }),
    drawn("path", { class: "line", d: lines.map((line) => path(line, x, y)).join("") }),
  );
}

// From nothing to no less than `highest`, in few steps of which people say the numbers.
function steps(highest) {
  const rough = highest / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
  return [...Array(Math.ceil(highest / step - 1e-9) + 1).keys()].map((each) => each * step);
}

// The most of each column of pixels: more would not be seen, and a short peak must be.
function perColumn(samples, x) {
  const found = [];
  let column = null;
  for (const sample of samples.filter(([time]) => x(time) >= LEFT)) {
    const here = Math.floor(x(sample[0]));
    if (here !== column) found.push(sample);
    else if (sample[1] !== null && !(found[found.length - 1][1] >= sample[1])) {
      found[found.length - 1] = sample;
    }
    column = here;
  }
  return found;
}

// Lines of samples with a lag, interrupted where it was not known.
function joined(samples, gap) {
  const lines = [];
  let before = null;
  for (const sample of samples) {
    const known = sample[1] !== null;
    if (known && before && before[1] !== null && sample[0] - before[0] <= gap) {
      lines[lines.length - 1].push(sample);
    } else if (known) lines.push([sample]);
    before = sample;
  }
  return lines;
}

function path(line, x, y) {
  const points = line.map(([time, lag]) => `${x(time).toFixed(1)} ${y(lag).toFixed(1)}`);
  // A line to where it is draws a dot.
  return `M${points[0]}L${(points.length > 1 ? points.slice(1) : points).join("L")}`;
}

function area(line, x, y) {
  const [first, last] = [line[0][0], line[line.length - 1][0]];
  return `${path(line, x, y)}L${x(last).toFixed(1)} ${y(0)}L${x(first).toFixed(1)} ${y(0)}Z`;
}
