// Any measure against any key or the step, over the runs of a sweep. A point is the mean over seeds of one config.
// Its lines have the order, the colours and the markers of the figure above it.
const EACH = "each line", DASHES = ["solid", "dash", "dot", "dashdot"], FILLS = ["", "-open", "-open-dot"];
const pen = document.createElement("canvas").getContext("2d");
const wide = text => { pen.font = '12px "Open Sans", verdana, arial, sans-serif'; return pen.measureText(text).width; };  // as Plotly writes
// A name in lines of so many pixels, broken between keys, and within one that is too long by itself.
const fold = (name, room) => name.split(/(?<=, )/).flatMap(part => wide(part) > room ? [...part] : [part])
  .reduce((lines, part) => wide(lines.at(-1) + part) > room ? [...lines, part] : [...lines.slice(0, -1), lines.at(-1) + part], [""]);
async function explore() {
  const {keys, x: usual, by: colour, looks, number, numbers, measures, lacking, runs} = JSON.parse(await unpack("runs"));
  await ready;
  const settings = keys.filter(key => key !== "seed");
  const pick = (id, choices, chosen) => { at(id).append(...choices.map(v => option(v))); if (choices.includes(chosen)) at(id).value = chosen; at(id).onchange = show; };
  pick("y", [...numbers, ...measures.map(m => m + " by step")], number);
  pick("x", keys, usual);
  pick("by", [EACH, ...keys], colour);
  const only = {};
  for (const key of settings) {
    const label = document.createElement("label"), select = document.createElement("select");
    label.textContent = key; select.append(option("", "all"));
    if (key === "lr" && runs.some(run => !run.best)) { select.append(option("best", "the table's")); select.value = "best"; }
    select.append(...[...new Set(runs.map(run => run.keys[key]))].sort(order).map(v => option(v)));
    select.onchange = show; only[key] = select; label.append(select); at("only").append(label);
  }
  const add = (line, where, value) => line.at.set(where, [...(line.at.get(where) || []), value]);
  function show() {
    const steps = at("y").value.endsWith(" by step"), name = at("y").value.replace(" by step", "");
    const x = steps ? "step" : at("x").value, by = at("by").value, own = by === EACH || by === x;  // each line has its own colour
    at("x").disabled = steps;
    const lines = new Map(), apart = new Map(), short = new Map();  // the last two: how many runs by what became of them
    const count = (found, what) => found.set(what, (found.get(what) || 0) + 1);
    const listed = found => [...found].sort((a, b) => order(a[0], b[0])).map(([what, n]) => `${n} ${what}`).join(", ");
    // As in the table: of a config of which runs have ended, no others are in its mean.
    const config = run => JSON.stringify(settings.map(key => run.keys[key]));
    const ended = new Set(runs.filter(run => run.ended && (steps || run.numbers[name] != null)).map(config));
    const away = run => run.double ? "of keys and a seed that another has"
      : run.status === "diverged" || run.status === "failed" || !run.ended && ended.has(config(run)) ? run.status : "";
    for (const run of runs) {
      const why = away(run);
      if (settings.some(key => only[key].value && run.keys[key] !== only[key].value && !(only[key].value === "best" && (run.best || why)))) continue;
      if (why) { count(apart, why); continue; }
      const said = settings.filter(key => key !== x && only[key].value !== "best").concat(x === "seed" || by !== "seed" ? [] : ["seed"]);
      const line = said.map(key => key + " " + run.keys[key]).join(", ");
      if (!lines.has(line)) lines.set(line, {colour: own ? "" : run.keys[by], said: said.map(key => [key, run.keys[key]]), at: new Map(), series: []});
      if (steps) lines.get(line).series.push(...(run.history[name] ? [run.history[name]] : []));
      else if (run.numbers[name] != null) add(lines.get(line), run.keys[x], run.numbers[name]);
      if (!run.ended && (steps ? run.history[name] : run.numbers[name] != null)) count(short, run.status);
    }
    let carried = false;  // a run counts on after its end, else a mean would fall where the best seed stops
    for (const line of lines.values()) {
      const every = [...new Set(line.series.flatMap(([steps]) => steps))].sort(order);
      const first = Math.max(...line.series.map(([steps]) => steps[0]));  // at which all have a value
      for (const [steps, values] of line.series) {
        let i = -1;
        for (const step of every) {
          if (steps[i + 1] === step) i++;
          if (step >= first) add(line, step, values[i]);
        }
        carried ||= steps.length < every.length;
      }
    }
    const values = line => [line.colour, ...line.said.map(s => s[1])];  // by which lines are sorted, one key after the other
    const first = (a, b) => values(a).map((v, k) => order(v, values(b)[k])).find(sign => sign) || 0;
    const shown = [...lines].filter(([, line]) => line.at.size).sort((a, b) => first(a[1], b[1]));
    // Few lines have a name each, of the keys in which they differ; of many the legend has the colours alone.
    const each = shown.length < looks.ordered.length, named = new Map();
    const differ = (shown[0] || [, {said: []}])[1].said.map(s => s[0]).filter((_, k) => new Set(shown.map(([, line]) => line.said[k][1])).size > 1);
    const told = shown.map(([, line]) => line.said.filter(s => differ.includes(s[0])));
    const colours = own ? told.map(said => (said.at(-1) || ["", ""])[1]) : [...new Set(shown.map(([, line]) => line.colour))];
    const look = colours.length > 2 && colours.every(isNumber) && looks.ordered[colours.length] || looks.lines;
    const shapes = looks.lines.slice(0, 8).map(line => line[1]);
    let several = false;
    const traces = shown.map(([text, line], nth) => {
      const points = [...line.at].sort((a, b) => order(a[0], b[0])), i = own ? nth : colours.indexOf(line.colour);
      const mean = values => values.reduce((a, b) => a + b) / values.length;
      const sd = values => values.length < 2 ? 0 : Math.sqrt(values.reduce((s, v) => s + (v - mean(values)) ** 2, 0) / (values.length - 1));
      const bars = !steps && points.some(p => p[1].length > 1);
      several ||= points.some(p => p[1].length > 1);
      const before = named.get(i) || 0, [color, shape] = look[i % look.length];  // before: how many lines of this colour
      named.set(i, before + 1);
      const other = each && !own ? before : 0;
      return {x: points.map(p => letters(p[0])), y: points.map(p => mean(p[1])), mode: steps && points.length >= 40 ? "lines" : "lines+markers",
        error_y: {type: "data", array: points.map(p => sd(p[1])), visible: bars, thickness: 1},
        name: (each ? told[nth].map(s => s.join(" ")).join(", ") : by + " " + line.colour) || "all",
        legendgroup: each ? nth : i, showlegend: each || !own && !before,
        line: {color, width: 1.5, dash: DASHES[(each && !own ? before : Math.floor(i / 8)) % 4]},
        marker: {symbol: shapes[(shapes.indexOf(shape) + Math.floor(other / 3)) % 8] + FILLS[other % 3], size: 8, color},
        text: points.map(p => letters(text) + "<br>n=" + p[1].length), hovertemplate: "%{text}<br>%{x}: %{y:.4f}<extra></extra>"};
    });
    const xs = [...new Set(traces.flatMap(t => t.x))].sort(order), all = xs.every(isNumber), scaled = xs.length > 2 && all;
    const counted = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
    at("explored").textContent = (traces.length ? `${counted(traces.length, "line")}, one for each config; a point is ${several ? "the mean over seeds" : "one run"}${several && !steps ? ", its bar one standard deviation" : ""}.` : "No run of this choice was measured.")
      + (carried ? " Where a run wasn't measured its last value counts." : "")
      + (steps && lacking ? ` The page has no learning curves of ${lacking} of the ${runs.length} runs.` : "")
      + (short.size ? ` Not ended: ${listed(short)}.` : "")
      + (apart.size ? ` In no mean: ${listed(apart)}.` : "");
    const log = scaled && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) >= 20 && !steps;
    // One value alone would have an axis from 1 below it to 1 above it.
    const ys = traces.flatMap(t => t.y), alone = new Set(ys).size === 1 && !traces.some(t => t.error_y.visible);
    const range = alone ? [-1, 1].map(side => ys[0] + side * (Math.abs(ys[0]) / 20 || 1)) : undefined;
    if (!all) traces.forEach(t => { t.mode = "markers"; });  // between categories there is nothing
    // The legend grows upwards, away from the axis, and the figure with it, by the rows of its entries and the lines of these.
    const entries = traces.filter(t => t.showlegend && traces.length > 1), room = at("plot").clientWidth - 70;
    const columns = Math.max(1, Math.floor(room / (50 + Math.max(0, ...entries.map(t => wide(t.name))))));
    const rows = entries.map(t => fold(t.name, room - 50)), high = columns > 1 ? Math.ceil(entries.length / columns) : rows.flat().length;
    entries.forEach((t, k) => { t.name = rows[k].map(letters).join("<br>"); });
    Plotly.react("plot", traces, {xaxis: {title: {text: x}, type: scaled ? (log ? "log" : "linear") : "category", categoryorder: "array", categoryarray: xs}, yaxis: {title: {text: name.replaceAll("_", " ")}, ...(range ? {range} : {})},
      height: 420 + (high ? 17 + 19 * high : 0), margin: {l: 60, r: 10, t: 10, b: 50}, showlegend: high > 0, legend: {orientation: "h", tracegroupgap: 0, maxheight: 1e4, y: 1.02, yanchor: "bottom", entrywidthmode: "fraction", entrywidth: 0.98 / columns}}, {displayModeBar: false, responsive: true});
  }
  show();
}
explore();
