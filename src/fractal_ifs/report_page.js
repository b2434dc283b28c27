const DIMS = ["fractal", "curve", "depth", "width", "lr"];
const at = id => document.getElementById(id);
const order = (a, b) => (Number(a) - Number(b)) || (String(a) < String(b) ? -1 : 1);
const values = {};
for (const dim of DIMS)
  values[dim] = [...new Set(DATA.entries.map(e => String(e[dim])))].filter(v => v !== "best").sort(order);
const option = (v, text) => { const o = document.createElement("option"); o.value = v; o.textContent = text || v; return o; };
for (const id of ["rows", "columns"]) for (const dim of DIMS.slice(1)) at(id).append(option(dim));
const filter = {};
for (const dim of DIMS) {
  const label = document.createElement("label"), select = document.createElement("select");
  label.textContent = dim; select.id = "filter-" + dim;
  select.append(option("", dim === "lr" ? "best" : "all"), ...values[dim].map(v => option(v)));
  select.onchange = draw; filter[dim] = select; label.append(select); at("filters").append(label);
}
function preset(rows, fixed) {
  at("rows").value = rows; at("columns").value = "width";
  for (const dim of DIMS) filter[dim].value = "";
  for (const dim in fixed) if (values[dim].includes(fixed[dim])) filter[dim].value = fixed[dim];
  draw();
}
at("t1").onclick = () => preset("depth", {curve: "1"});
at("t2").onclick = () => preset("curve", {depth: "5"});
for (const id of ["show", "rows", "columns", "sort", "full"]) at(id).onchange = draw;

function shown(e) {
  const show = at("show").value;
  if (show === "acc") return e.acc;
  if (show === "paper") return e.paper;
  return e.paper === null || e.paper === undefined ? null : e.acc - e.paper;
}
function draw() {
  const row = at("rows").value, column = at("columns").value, show = at("show").value;
  const axes = [row, column];
  const kept = DATA.entries.filter(e =>
    DIMS.every(dim => dim === "lr" && !axes.includes("lr") ? e.lr === (filter.lr.value || "best")
      : (dim === "lr" && e.lr === "best") ? false : !filter[dim].value || String(e[dim]) === filter[dim].value)
    && (!at("full").checked || !e.small));
  const over = DIMS.filter(d => !axes.includes(d) && d !== "fractal" && d !== "lr" && !filter[d].value);
  at("said").textContent = row === column ? "rows and columns are the same key" :
    (over.length ? "A cell shows the best over " + over.join(" and ") + ". " : "")
    + (kept.length ? "Point at a cell for its learning curve." : "No cell of this choice was run.");
  at("maps").replaceChildren();
  const plots = [];  // drawn once all of them have their place, and so their width
  for (const fractal of values.fractal) {
    const own = kept.filter(e => e.fractal === fractal);
    if (!own.length || row === column) continue;
    const best = new Map();
    for (const e of own) {
      const key = e[row] + "|" + e[column];
      if (!best.has(key) || best.get(key).acc < e.acc) best.set(key, e);
    }
    let ys = [...new Set(own.map(e => String(e[row])))].sort(order);
    const xs = [...new Set(own.map(e => String(e[column])))].sort(order);
    const cell = (y, x) => best.get(y + "|" + x);
    const mean = y => { const v = xs.map(x => cell(y, x)).filter(Boolean).map(shown).filter(z => z != null);
      return v.length ? v.reduce((a, b) => a + b) / v.length : -9; };
    if (at("sort").checked) ys.sort((a, b) => mean(b) - mean(a));
    const z = ys.map(y => xs.map(x => { const e = cell(y, x); return e ? shown(e) : null; }));
    const text = ys.map((y, i) => xs.map((x, j) => { const e = cell(y, x), v = z[i][j];
      if (!e || v == null) return "";
      const marks = show === "paper" ? "" : (e.small ? "*" : "") + (e.differs ? "†" : "");
      return (show === "diff" && v > 0 ? "+" : "") + v.toFixed(show === "paper" ? 2 : 3) + marks; }));
    const hover = ys.map(y => xs.map(x => { const e = cell(y, x); return e ? describe(e) : ""; }));
    const scale = show === "diff" ? {colorscale: "RdBu", zmin: -0.1, zmax: 0.1} : {colorscale: "Viridis", zmin: 0.5, zmax: 1};
    const map = document.createElement("div");
    at("maps").append(map);
    plots.push(() => Plotly.newPlot(map, [{type: "heatmap", x: xs, y: ys, z, text, texttemplate: "%{text}", hovertext: hover,
      hovertemplate: "%{hovertext}<extra></extra>", xgap: 2, ygap: 2, ...scale, colorbar: {thickness: 10}}],
      {title: {text: fractal, font: {size: 15}}, height: 110 + 38 * Math.max(ys.length, 3), margin: {l: 60, r: 10, t: 36, b: 44},
       xaxis: {type: "category", title: {text: column}}, yaxis: {type: "category", title: {text: row}, autorange: "reversed"}},
      {displayModeBar: false, responsive: true}).then(() => map.on("plotly_hover", event => {
        const p = event.points[0], e = cell(String(p.y), String(p.x)); if (e) curve(e); })));
  }
  for (const plot of plots) plot();
  if (kept.length) curve(kept.reduce((a, b) => a.acc > b.acc ? a : b));
}
function describe(e) {
  return `${e.fractal}, curve ${e.curve}, depth ${e.depth}, width ${e.width}<br>ours ${e.acc.toFixed(4)}`
    + (e.spread == null ? "" : ` ± ${e.spread.toFixed(4)} over ${e.seeds} seeds`)
    + (e.paper == null ? "" : `, the paper ${e.paper.toFixed(2)}`)
    + `<br>lr ${e.chosen}, ${e.budget.toLocaleString("en")} steps, ${e.params} parameters` + (e.differs ? "<br>† " + e.differs : "");
}
function curve(e) {
  const found = e.h < 0 ? [[], []] : DATA.curves[e.h], lines = [{x: found[0], y: found[1], mode: "lines", name: "test accuracy"}];
  if (e.paper != null && found[0].length)
    lines.push({x: [found[0][0], found[0].at(-1)], y: [e.paper, e.paper], mode: "lines", name: "the paper's best",
      line: {dash: "dash", color: "#888"}});
  Plotly.react("curve", lines, {title: {text: describe(e).replaceAll("<br>", "; ") + (e.h < 0 ? " (no history here)" : ""),
    font: {size: 13}}, margin: {l: 60, r: 10, t: 40, b: 44}, xaxis: {title: {text: "step"}}, showlegend: true,
    yaxis: {title: {text: "test accuracy"}}}, {displayModeBar: false, responsive: true});
}
preset("depth", {curve: "1"});
