// Starts the page. Charts are a large module of their own, fetched when the first chart is drawn.
import init, { page_main } from './attention_lab.js';
import './host.js';

try {
  await init();
  page_main(document.getElementById('lab'));
} catch (error) {
  const boot = document.getElementById('boot');
  if (boot) boot.textContent = `The lab could not start here: ${error}. It needs a browser with WebAssembly SIMD, such as a current Chromium, Firefox or Safari.`;
  throw error;
}
