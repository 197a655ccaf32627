import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { WeirError } from '#platform/errors.ts';
import { projectRoot } from '#tools/local/leftovers.ts';

const run = promisify(execFile);

/** kubectl with a kubeconfig. */
export class Kubectl {
  readonly #options: { command: string; kubeconfig: string; cache?: string };

  constructor(options: { command: string; kubeconfig: string; cache?: string }) {
    this.#options = options;
  }

  /**
   * Runs kubectl and returns what it printed.
   *
   * @throws WeirError KubectlFailed with what it said.
   */
  run(...args: string[]): Promise<string> {
    return this.#run(args);
  }

  async #run(args: readonly string[], input = ''): Promise<string> {
    const { command, kubeconfig, cache } = this.#options;
    const all = [...(cache ? ['--cache-dir', cache] : []), ...args];
    // By environment, as KUBECONFIG may be a list of files.
    const env = { ...process.env, KUBECONFIG: kubeconfig };
    try {
      const options = { cwd: projectRoot, env, maxBuffer: 64 * 1024 * 1024, timeout: 90_000 };
      const running = run(command, all, options);
      running.child.stdin?.end(input);
      return (await running).stdout;
    } catch (error) {
      const said = (error as { stderr?: string }).stderr?.trim();
      throw new WeirError('KubectlFailed', said && said !== '' ? said : `kubectl ${args.join(' ')} failed`, {
        cause: error,
        where: `kubectl ${args.join(' ')}`,
      });
    }
  }

  /** Runs kubectl with `-o json` and returns the object. */
  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.run(...args, '-o', 'json')) as T;
  }

  /** Applies a manifest that is given as an object. */
  async apply(manifest: object): Promise<void> {
    await this.#run(['apply', '-f', '-'], JSON.stringify(manifest));
  }

  /** Applies the CRDs, waits until they are served, and makes the namespace of SfuNodes and the Lease. */
  async installWeir(namespace = 'weir-system'): Promise<void> {
    await this.run('apply', '--server-side', '--force-conflicts', '-f', join(projectRoot, 'crds'));
    const crds = ['crd/rooms.weir.dev', 'crd/sfunodes.weir.dev'];
    await this.run('wait', '--for=condition=Established', '--timeout=30s', ...crds);
    const found = await this.run('get', 'namespace', namespace, '--ignore-not-found', '-o', 'name');
    if (found === '') await this.run('create', 'namespace', namespace);
  }
}
