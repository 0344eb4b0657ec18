import './shelf.js';

// What the page asks of JavaScript: its worker, charts, and saving a file. The wasm module calls these by name. Everything is
// found beside this module, so that a figure also works in a page of another site.
globalThis.attentionLabHost = {
  address: (path) => new URL(path, import.meta.url).href,
  startWorker() {
    const address = new URL('./worker.js', import.meta.url).href;
    if (new URL(address).origin === location.origin) return new Worker(address, { type: 'module' });
    // A worker's first script must be the page's own; from there on it may import what the lab's server allows (CORS).
    const script = URL.createObjectURL(new Blob([`import ${JSON.stringify(address)};`], { type: 'text/javascript' }));
    return new Worker(script, { type: 'module' });
  },
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
  // The text of a file beside this module.
  async fetchText(path) {
    const response = await fetch(new URL(path, import.meta.url));
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.text();
  },
  saveText(name, type, text) {
    this.saveBlob(name, new Blob([text], { type }));
  },
  saveBlob(name, blob) {
    this.saveAddress(name, URL.createObjectURL(blob));
  },
  // Saves what is at an address, and gives the address back.
  saveAddress(name, address) {
    const link = document.createElement('a');
    link.href = address;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  },
};
