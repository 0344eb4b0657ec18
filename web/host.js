// What the page asks of JavaScript: charts, and saving a file. The wasm module calls these by name.
globalThis.attentionLabHost = {
  // Draws a chart into `element` from a JSON description; resolves when it stands.
  async drawChart(element, json) {
    const { drawChart } = await import('./charts.js');
    drawChart(element, JSON.parse(json));
  },
  // Saves the SVG inside `element` as `name`.svg or `name`.png.
  async saveChart(element, name, kind) {
    const { saveChart } = await import('./charts.js');
    await saveChart(element, name, kind);
  },
  saveText(name, type, text) {
    this.saveBlob(name, new Blob([text], { type }));
  },
  saveBlob(name, blob) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  },
};
