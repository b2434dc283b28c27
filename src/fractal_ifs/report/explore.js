// Any measure against any key or the step, over the runs of a sweep. A point is the mean over seeds of one config.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
async function explore() {
  const {keys, x: usual, number, numbers, measures, runs} = JSON.parse(await unpack("runs"));
  await ready;
  const settings = keys.filter(key => key !== "seed");
  const pick = (id, choices, chosen) => { at(id).append(...choices.map(v => option(v))); if (choices.includes(chosen)) at(id).value = chosen; at(id).onchange = show; };
  pick("y", [...numbers, ...measures.map(m => m + " by step")], number);
  pick("x", keys, usual);
  pick("by", ["nothing", ...keys], settings.find(key => key !== at("x").value && key !== "lr") || "nothing");
  const only = {};
  for (const key of settings) {
    const label = document.createElement("label"), select = document.createElement("select");
    label.textContent = key; select.append(option("", "all"));
    if (key === "lr" && runs.some(run => !run.best)) { select.append(option("best", "the table's")); select.value = "best"; }
    select.append(...[...new Set(runs.map(run => run.keys[key]))].sort(order).map(v => option(v)));
    select.onchange = show; only[key] = select; label.append(select); at("only").append(label);
  }
  function show() {
    const steps = at("y").value.endsWith(" by step"), name = at("y").value.replace(" by step", "");
    const x = steps ? "step" : at("x").value, by = at("by").value;
    at("x").disabled = steps;
    const lines = new Map();
    let apart = 0;
    for (const run of runs) {
      if (settings.some(key => only[key].value && run.keys[key] !== only[key].value && !(only[key].value === "best" && run.best))) continue;
      if (run.status === "diverged" || run.status === "failed") { apart++; continue; }
      const said = settings.filter(key => key !== x && only[key].value !== "best").concat(x === "seed" || by !== "seed" ? [] : ["seed"]);
      const line = said.map(key => key + " " + run.keys[key]).join(", ");
      if (!lines.has(line)) lines.set(line, {colour: by === "nothing" ? "" : run.keys[by], said: said.map(key => [key, run.keys[key]]), at: new Map()});
      const add = (where, value) => { const points = lines.get(line).at; if (value != null) points.set(where, [...(points.get(where) || []), value]); };
      if (steps) { const series = run.history[name]; if (series) series[0].forEach((step, i) => add(step, series[1][i])); }
      else add(run.keys[x], run.numbers[name]);
    }
    const shown = [...lines].filter(([, line]) => line.at.size).sort((a, b) => order(a[1].colour, b[1].colour));
    // Few lines have a name each, of the keys in which they differ; of many the legend has the colours alone.
    const each = shown.length <= 24, colours = [...new Set(shown.map(([, line]) => line.colour))].sort(order), named = new Map();
    const differ = (shown[0] || [, {said: []}])[1].said.map(s => s[0]).filter((_, k) => new Set(shown.map(([, line]) => line.said[k][1])).size > 1);
    let several = false;
    const traces = shown.map(([text, line], nth) => {
      const points = [...line.at].sort((a, b) => order(a[0], b[0])), colour = colours.indexOf(line.colour);
      const mean = values => values.reduce((a, b) => a + b) / values.length;
      const sd = values => values.length < 2 ? 0 : Math.sqrt(values.reduce((s, v) => s + (v - mean(values)) ** 2, 0) / (values.length - 1));
      const bars = !steps && points.some(p => p[1].length > 1);
      several ||= points.some(p => p[1].length > 1);
      const before = named.get(colour) || 0; named.set(colour, before + 1);
      const i = each && by === "nothing" ? nth : colour, symbol = each && by !== "nothing" ? colour + before : i + Math.floor(i / 8);
      const name = each ? line.said.filter(s => differ.includes(s[0])).map(s => s.join(" ")).join(", ") : line.colour === "" ? "" : by + " " + line.colour;
      return {x: points.map(p => p[0]), y: points.map(p => mean(p[1])), mode: steps && points.length >= 40 ? "lines" : "lines+markers",
        error_y: {type: "data", array: points.map(p => sd(p[1])), visible: bars, thickness: 1},
        name: name || "all", legendgroup: each ? nth : colour, showlegend: each || !before,
        line: {color: COLOURS[i % 8], width: 1.5, dash: DASHES[(each && by !== "nothing" ? before : Math.floor(i / 8)) % 4]},
        marker: {symbol: SYMBOLS[symbol % 8], size: 8, color: COLOURS[i % 8]},
        text: points.map(p => text + "<br>n=" + p[1].length), hovertemplate: "%{text}<br>%{x}: %{y:.4f}<extra></extra>"};
    });
    const xs = [...new Set(traces.flatMap(t => t.x))].sort(order), all = xs.every(v => !isNaN(v) && String(v).trim()), scaled = xs.length > 2 && all;
    const counted = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
    at("explored").textContent = (traces.length ? `${counted(traces.length, "line")}, one for each config; a point is ${several ? "the mean over seeds" : "one run"}${several && !steps ? ", its bar one standard deviation" : ""}.` : "No run of this choice was measured.")
      + (apart ? ` ${counted(apart, "run")} that diverged or failed: left out.` : "");
    const log = scaled && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) >= 20 && !steps;
    // One value alone would have an axis from 1 below it to 1 above it.
    const values = traces.flatMap(t => t.y), alone = new Set(values).size === 1 && !traces.some(t => t.error_y.visible);
    const range = alone ? [-1, 1].map(side => values[0] + side * (Math.abs(values[0]) / 20 || 1)) : undefined;
    if (!all) traces.forEach(t => { t.mode = "markers"; });  // between categories there is nothing
    // The legend grows upwards, away from the axis, and the figure with it: its lines, by the widths of its entries.
    const longest = Math.max(0, ...traces.filter(t => t.showlegend).map(t => t.name.length)) * 7 + 50, entries = traces.filter(t => t.showlegend).length;
    const columns = Math.max(1, Math.floor((at("plot").clientWidth - 70) / longest)), rows = traces.length < 2 ? 0 : Math.ceil(entries / columns);
    Plotly.react("plot", traces, {xaxis: {title: {text: x}, type: scaled ? (log ? "log" : "linear") : "category", categoryorder: "array", categoryarray: xs}, yaxis: {title: {text: name.replaceAll("_", " ")}, ...(range ? {range} : {})},
      height: 420 + 19 * rows, margin: {l: 60, r: 10, t: 10, b: 50}, legend: {orientation: "h", y: 1.02, yanchor: "bottom", entrywidthmode: "fraction", entrywidth: 0.98 / columns}}, {displayModeBar: false, responsive: true});
  }
  show();
}
explore();
