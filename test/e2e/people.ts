import type { Page } from 'playwright-core';

/** How one drawn person looks. CSS colours. */
export interface Look {
  wall: [string, string];
  skin: string;
  hair: string;
  shirt: string;
  longHair: boolean;
}

export const looks: Record<'ada' | 'grace', Look> = {
  ada: { wall: ['#35525e', '#1f343d'], skin: '#e9b795', hair: '#3a2319', shirt: '#c8553d', longHair: true },
  grace: { wall: ['#5b4a63', '#372c40'], skin: '#a8714f', hair: '#17120f', shirt: '#2f8f83', longHair: false },
};

/**
 * Gives a page a camera that shows a drawn person who moves, in place of Chromium's green test picture. For
 * screenshots that people look at. To be called before the page is opened.
 */
export async function sitBeforeCamera(page: Page, look: Look): Promise<void> {
  // The text of a function, as its types are the browser's.
  await page.addInitScript(`(${camera})(${JSON.stringify(look)});`);
}

const camera = `(look) => {
  const canvas = document.createElement('canvas');
  canvas.width = 1280;
  canvas.height = 720;
  const pen = canvas.getContext('2d');
  const ellipse = (color, x, y, rx, ry) => {
    pen.fillStyle = color;
    pen.beginPath();
    pen.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI);
    pen.fill();
  };
  const draw = (ms) => {
    const t = ms / 1000;
    const wall = pen.createLinearGradient(0, 0, 1280, 720);
    wall.addColorStop(0, look.wall[0]);
    wall.addColorStop(1, look.wall[1]);
    pen.fillStyle = wall;
    pen.fillRect(0, 0, 1280, 720);
    // A window and a shelf, out of the light.
    pen.fillStyle = 'rgb(255 255 255 / 9%)';
    pen.fillRect(90, 70, 250, 330);
    pen.fillStyle = 'rgb(0 0 0 / 22%)';
    pen.fillRect(930, 250, 290, 14);
    ['#d9a441', '#7a9e7e', '#b5523b', '#8fa6b2', '#e0d3b8'].forEach((color, i) => {
      pen.globalAlpha = 0.55;
      pen.fillStyle = color;
      pen.fillRect(950 + i * 38, 140 + (i % 3) * 14, 28, 110 - (i % 3) * 14);
      pen.globalAlpha = 1;
    });
    const x = 640 + 10 * Math.sin(t * 0.9);
    const y = 330 + 6 * Math.sin(t * 1.7);
    if (look.longHair) {
      ellipse(look.hair, x, y + 70, 165, 215);
    }
    ellipse(look.shirt, 640, 770, 330, 260);
    pen.fillStyle = look.skin;
    pen.fillRect(x - 48, y + 90, 96, 120);
    ellipse(look.skin, x, y + 210, 62, 38);
    ellipse(look.skin, x, y, 122, 152);
    ellipse(look.hair, x, y - 96, 128, 82);
    ellipse(look.skin, x, y - 28, 104, 66);
    const blink = t % 3.7 < 0.12 ? 2 : 13;
    for (const side of [-1, 1]) {
      ellipse('#fff', x + side * 46, y - 6, 20, blink);
      ellipse('#2a1c14', x + side * 46 + 3 * Math.sin(t), y - 5, 9, Math.min(blink, 9));
      pen.strokeStyle = look.hair;
      pen.lineWidth = 7;
      pen.lineCap = 'round';
      pen.beginPath();
      pen.arc(x + side * 46, y - 14, 28, 1.25 * Math.PI, 1.75 * Math.PI);
      pen.stroke();
    }
    pen.strokeStyle = 'rgb(0 0 0 / 22%)';
    pen.lineWidth = 5;
    pen.beginPath();
    pen.moveTo(x, y + 8);
    pen.quadraticCurveTo(x + 14, y + 40, x - 4, y + 44);
    pen.stroke();
    ellipse('#8c3b35', x, y + 84, 36, 9 + 9 * Math.abs(Math.sin(t * 5)));
    ellipse(look.skin, x, y + 74, 40, 9);
  };
  // A timer, as a page that is not in front gets no animation frames.
  setInterval(() => draw(performance.now()), 40);
  draw(0);
  const devices = navigator.mediaDevices;
  // Vowels of a sort: a low saw tooth whose loudness comes and goes, like syllables.
  const speak = () => {
    const audio = new AudioContext();
    const [voice, loudness, syllables, depth] = [audio.createOscillator(), audio.createGain(), audio.createOscillator(), audio.createGain()];
    voice.type = 'sawtooth';
    voice.frequency.value = look.longHair ? 210 : 120;
    syllables.frequency.value = 2.5;
    loudness.gain.value = 0.2;
    depth.gain.value = 0.15;
    syllables.connect(depth).connect(loudness.gain);
    const out = audio.createMediaStreamDestination();
    voice.connect(loudness).connect(out);
    voice.start();
    syllables.start();
    return out.stream.getAudioTracks()[0];
  };
  devices.getUserMedia = (constraints) => {
    const stream = new MediaStream();
    if (constraints.video) canvas.captureStream(25).getVideoTracks().forEach((track) => stream.addTrack(track));
    if (constraints.audio) stream.addTrack(speak());
    return Promise.resolve(stream);
  };
}`;
