import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { projectRoot } from '#tools/local/leftovers.ts';

interface Values {
  image: { repository: string };
  nats: { image: { repository: string; tag: string } };
}

/** Names of the images that the chart runs when its values say nothing else. */
export async function chartImages(): Promise<{ weir: string; nats: string }> {
  const chart = join(projectRoot, 'helm/weir');
  const { appVersion } = parse(await readFile(join(chart, 'Chart.yaml'), 'utf8')) as { appVersion: string };
  const { image, nats } = parse(await readFile(join(chart, 'values.yaml'), 'utf8')) as Values;
  return { weir: `${image.repository}:${appVersion}`, nats: `${nats.image.repository}:${nats.image.tag}` };
}
