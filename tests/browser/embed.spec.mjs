// Embeds, as the tutorial uses them.
import { test, expect } from './lab.mjs';

test('the tutorial embeds figures, which tell their height and take a state', async ({ lab }) => {
  const page = await lab.open('tutorial.html');
  await page.evaluate(() => {
    window.heard = [];
    addEventListener('message', (event) => window.heard.push(event.data));
  });
  const frame = page.frameLocator('#window');
  await expect(frame.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#window')).toHaveAttribute('style', /height/);
  await page.getByRole('button', { name: '512 tokens' }).click();
  await expect(frame.locator('#state-line')).toContainText('512 tokens');
  await expect.poll(() => page.evaluate(() => window.heard.some((m) => m.source === 'attention-lab' && m.type === 'state' && m.query.includes('n=512')))).toBe(true);
  // The second waits for a click, and says so; the third runs by itself when it is near.
  await page.locator('#race').scrollIntoViewIfNeeded();
  await expect(page.locator('#race #run')).toBeVisible();
  await page.locator('#loss').scrollIntoViewIfNeeded();
  await expect(page.locator('#loss #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
});

test('an embed shows what its address says and names what it cannot', async ({ lab }) => {
  const page = await lab.open('embed.html?v=1&variant=linear&n=64&run=auto&show=legend&lock=1&caption=A+caption&n2=5');
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#state-line')).toHaveCount(0);
  await expect(page.locator('.embed-caption')).toContainText('A caption');
  await expect(page.locator('#banner-link')).toContainText('n2');
});
