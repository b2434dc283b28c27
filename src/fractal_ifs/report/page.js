const at = id => document.getElementById(id);
const isNumber = v => !isNaN(v) && String(v).trim() !== "";
const order = (a, b) => isNumber(b) - isNumber(a) || (isNumber(a) ? a - b : (String(a) > String(b)) - (String(a) < String(b)));  // numbers first
const option = (v, text) => { const o = document.createElement("option"); o.value = v; o.textContent = text || v; return o; };
const letters = v => typeof v === "string" ? v.replaceAll("&", "&amp;").replaceAll("<", "&lt;") : v;  // for Plotly, which reads tags
async function unpack(id) {
  const bytes = Uint8Array.from(atob(at(id).textContent), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
const ready = unpack("plotly").then(text => {
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
});
