// Observable Plot and d3, loaded only when a chart is first drawn: `const { Plot, d3 } = await import('./vendor/charts.js')`.
// Both come as UMD files, which put their names on globalThis; the import order matters, Plot looks for d3.
import './d3.min.js';
import './plot.umd.min.js';

export const d3 = globalThis.d3;
export const Plot = globalThis.Plot;
