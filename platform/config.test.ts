import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { z } from 'zod';
import { fields, readConfig } from './config.ts';
import { codeOf, messageOf } from './errors.ts';

const shape = {
  WEIR_NAME: fields.text('a name for this node'),
  WEIR_LISTEN: fields.listen('where clients connect').default({ host: '127.0.0.1', port: 0 }),
  WEIR_WORKERS: fields.integer(1, 64).default(2),
  WEIR_LABELS: fields.pairs().default({}),
  WEIR_LOG_FORMAT: fields.logFormat(),
  WEIR_EXTRA: z.string().optional(),
};

function failureOf(env: Record<string, string>): string {
  try {
    readConfig(shape, env);
  } catch (error) {
    assert.equal(codeOf(error), 'BadConfiguration');
    return messageOf(error);
  }
  throw new assert.AssertionError({ message: 'it was accepted' });
}

void describe('reading configuration', () => {
  void it('takes given values and defaults', () => {
    const config = readConfig(shape, {
      WEIR_NAME: 'a',
      WEIR_LISTEN: '[::1]:80',
      WEIR_LABELS: 'disk=fast, gpu=',
      WEIR_EXTRA: '',
    });
    assert.deepEqual(config.WEIR_LISTEN, { host: '::1', port: 80 });
    assert.deepEqual(config.WEIR_LABELS, { disk: 'fast', gpu: '' });
    assert.equal(config.WEIR_WORKERS, 2);
    assert.equal(config.WEIR_EXTRA, undefined);
  });

  void it('names every wrong variable at once, with what to write', () => {
    const words = failureOf({ WEIR_LISTEN: 'nowhere', WEIR_WORKERS: '0', WEIR_LABELS: 'a', WEIR_LOG_FORMAT: 'xml' });
    for (const name of Object.keys(shape).slice(0, 5)) assert.match(words, new RegExp(name));
    assert.match(words, /write a name for this node/);
    assert.match(words, /whole number from 1 to 64/);
  });

  void it('refuses a port beyond 65535', () => {
    assert.match(failureOf({ WEIR_NAME: 'a', WEIR_LISTEN: 'h:65536' }), /WEIR_LISTEN.*host:port/);
  });
});
