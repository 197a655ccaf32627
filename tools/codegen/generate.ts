/**
 * Writes every generated file of the project:
 * - proto/generated from proto (buf with ts-proto),
 * - crds/generated from the CRDs (json-schema-to-typescript),
 * - helm/weir/files/crds, as a chart can hold only files below it.
 *
 * usage: node tools/codegen/generate.ts [--check]
 * `--check` changes nothing and exits 1 when a file is not what its source says.
 */
import { execFileSync } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, relative } from 'node:path';
import { compile, type JSONSchema } from 'json-schema-to-typescript';
import { parse } from 'yaml';

const root = join(import.meta.dirname, '../..');
const outputs = ['proto/generated', 'crds/generated', 'helm/weir/files/crds'] as const;

interface CustomResourceDefinition {
  spec: {
    group: string;
    names: { kind: string; plural: string };
    versions: { name: string; schema: { openAPIV3Schema: JSONSchema } }[];
  };
}

/** Generates protobuf types and gRPC stubs below `out`. */
async function generateProto(out: string): Promise<void> {
  const bin = join(root, 'node_modules/.bin');
  const work = await mkdtemp(join(tmpdir(), 'weir-proto-'));
  try {
    await cp(join(root, 'proto'), join(work, 'proto'), {
      recursive: true,
      filter: (source) => !source.endsWith('generated'),
    });
    const template = (await readFile(join(root, 'proto/buf.gen.yaml'), 'utf8')).replace(
      '../node_modules/.bin/protoc-gen-ts_proto',
      join(bin, 'protoc-gen-ts_proto'),
    );
    await writeFile(join(work, 'proto/buf.gen.yaml'), template);
    execFileSync(join(bin, 'buf'), ['generate'], {
      cwd: join(work, 'proto'),
      stdio: 'inherit',
      env: { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}` },
    });
    await cp(join(work, 'proto/generated'), out, { recursive: true });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Generates one TypeScript file a CRD below `out`. */
async function generateCrds(out: string): Promise<void> {
  await mkdir(out, { recursive: true });
  for (const file of (await readdir(join(root, 'crds'))).filter((name) => name.endsWith('.yaml'))) {
    const crd = parse(await readFile(join(root, 'crds', file), 'utf8')) as CustomResourceDefinition;
    const version = crd.spec.versions[0];
    if (!version) throw new Error(`${file}: no version in spec.versions; write one`);
    const { kind, plural } = crd.spec.names;
    const schema = structuredClone(version.schema.openAPIV3Schema);
    const properties = schema.properties ?? {};
    delete properties['metadata'];
    const types = await compile(closed(schema), kind, {
      bannerComment: `/* Generated from crds/${file} by \`npm run generate\`. Do not edit. */`,
      additionalProperties: false,
      style: { printWidth: 120, singleQuote: true },
    });
    const header =
      `import type { V1ObjectMeta } from '@kubernetes/client-node';\n\n` +
      `/** Group, version and plural of ${kind}, as API calls name them. */\n` +
      `export const ${plural} = { group: '${crd.spec.group}', version: '${version.name}', plural: '${plural}', kind: '${kind}' } as const;\n`;
    const body = types.replace(`export interface ${kind} {`, `export interface ${kind} {\n  metadata: V1ObjectMeta;`);
    await writeFile(join(out, `${kind.toLowerCase()}.ts`), body.replace(/\*\/\n/, `*/\n${header}`));
  }
}

/** Copies the CRDs for the chart. */
async function copyCrds(out: string): Promise<void> {
  await cp(join(root, 'crds'), out, { recursive: true, filter: (source) => !source.endsWith('generated') });
}

/** Copy of a schema in which every object without additionalProperties is closed, so that no index signature is made. */
function closed(schema: JSONSchema): JSONSchema {
  const copy = { ...schema };
  if (copy.properties) {
    copy.properties = Object.fromEntries(Object.entries(copy.properties).map(([name, value]) => [name, closed(value)]));
  }
  if (copy.items && !Array.isArray(copy.items)) copy.items = closed(copy.items);
  // Length limits of arrays would become unions of tuples.
  delete copy.maxItems;
  delete copy.minItems;
  return copy;
}

async function listFiles(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

async function main(): Promise<void> {
  const check = process.argv.includes('--check');
  const fresh = await mkdtemp(join(tmpdir(), 'weir-generated-'));
  try {
    await generateProto(join(fresh, 'proto/generated'));
    await generateCrds(join(fresh, 'crds/generated'));
    await copyCrds(join(fresh, 'helm/weir/files/crds'));
    const stale: string[] = [];
    for (const output of outputs) {
      const wanted = await listFiles(join(fresh, output));
      const present = await listFiles(join(root, output));
      for (const file of new Set([...wanted, ...present])) {
        const [a, b] = await Promise.all(
          [fresh, root].map((base) => readFile(join(base, output, file), 'utf8').catch(() => undefined)),
        );
        if (a !== b) stale.push(join(output, file));
      }
      if (!check) {
        await rm(join(root, output), { recursive: true, force: true });
        await cp(join(fresh, output), join(root, output), { recursive: true });
      }
    }
    if (check && stale.length > 0) {
      console.error(
        `Generated files differ from their sources: ${stale.join(', ')}. Run \`npm run generate\` and commit.`,
      );
      process.exitCode = 1;
    } else {
      console.log(check ? 'Generated files are fresh.' : `Generated ${stale.length} changed files.`);
    }
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

await main();
