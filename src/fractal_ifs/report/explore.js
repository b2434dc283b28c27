// Any measure against any key or the step, over the runs of a sweep. A point is the mean over seeds of one config.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
async function explore() {
  const {keys, x: usual, numbers, measures, runs} = JSON.parse(await unpack("runs"));
  await ready;
  const settings = keys.filter(key => key !== "seed");
  const pick = (id, choices, chosen) => { at(id).append(...choices.map(v => option(v))); if (choices.includes(chosen)) at(id).value = chosen; at(id).onchange = show; };
  pick("y", [...numbers, ...measures.map(m => m + " by step")]);
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
      const names = settings.filter(key => key !== x && only[key].value !== "best").map(key => key + " " + run.keys[key]).concat(x === "seed" || by !== "seed" ? [] : ["seed " + run.keys.seed]);
      const line = names.join(", ");
      if (!lines.has(line)) lines.set(line, {colour: by === "nothing" ? "" : run.keys[by], at: new Map()});
      const add = (where, value) => { const points = lines.get(line).at; if (value != null) points.set(where, [...(points.get(where) || []), value]); };
      if (steps) { const series = run.history[name]; if (series) series[0].forEach((step, i) => add(step, series[1][i])); }
      else add(run.keys[x], run.numbers[name]);
    }
    const colours = [...new Set([...lines.values()].map(line => line.colour))].sort(order), named = new Set();
    const traces = [...lines].filter(([, line]) => line.at.size).map(([text, line]) => {
      const points = [...line.at].sort((a, b) => order(a[0], b[0])), i = colours.indexOf(line.colour);
      const mean = values => values.reduce((a, b) => a + b) / values.length;
      const sd = values => values.length < 2 ? 0 : Math.sqrt(values.reduce((s, v) => s + (v - mean(values)) ** 2, 0) / (values.length - 1));
      const first = !named.has(i); named.add(i);
      return {x: points.map(p => p[0]), y: points.map(p => mean(p[1])), mode: steps && points.length >= 40 ? "lines" : "lines+markers",
        error_y: {type: "data", array: points.map(p => sd(p[1])), visible: !steps, thickness: 1},
        name: line.colour === "" ? "all" : by + " " + line.colour, legendgroup: i, showlegend: first,
        line: {color: COLOURS[i % 8], width: 1.5}, marker: {symbol: SYMBOLS[i % 8], size: 8, color: COLOURS[i % 8]},
        text: points.map(p => text + "<br>n=" + p[1].length), hovertemplate: "%{text}<br>%{x}: %{y:.4f}<extra></extra>"};
    });
    const xs = [...new Set(traces.flatMap(t => t.x))], number = xs.length > 2 && xs.every(v => !isNaN(v) && String(v).trim());
    at("explored").textContent = (traces.length ? `${traces.length} lines, one for each config; a point is the mean over seeds, its bar one standard deviation.` : "No run of this choice was measured.")
      + (apart ? ` ${apart} runs that diverged or failed are left out.` : "");
    const log = number && Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) >= 20 && !steps;
    Plotly.react("plot", traces, {xaxis: {title: {text: x}, type: number ? (log ? "log" : "linear") : "category"}, yaxis: {title: {text: name.replaceAll("_", " ")}},
      height: 420, margin: {l: 60, r: 10, t: 10, b: 50}, legend: {orientation: "h", y: -0.2}}, {displayModeBar: false, responsive: true});
  }
  show();
}
explore();
