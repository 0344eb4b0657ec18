// Starts an embed: one figure of the lab inside another page.
import init, { embed_main } from './attention_lab.js';
import './host.js';

try {
  await init();
  embed_main(document.getElementById('lab'));
} catch (error) {
  const boot = document.getElementById('boot');
  if (boot) boot.textContent = `This figure could not start: ${error}.`;
  if (parent !== self) parent.postMessage({ source: 'attention-lab', type: 'error', message: String(error) }, '*');
  throw error;
}
