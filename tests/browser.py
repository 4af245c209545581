"""Chromium without a window, spoken to through a pipe: what a page looks like, and what it complains of."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

from caloforge.report import pdf

MEASURE = """(() => {
  const width = document.documentElement.clientWidth, wide = [];
  const scrolls = element =>
    element && (getComputedStyle(element).overflowX != "visible" || scrolls(element.parentElement));
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > width + 1 || box.left < -1) && !scrolls(element.parentElement))
      wide.push(`${element.tagName} ${element.className} ${Math.round(box.left)} to ${Math.round(box.right)}`);
  }
  const cut = [...document.body.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth + 1);
  const images = [...document.images];
  return JSON.stringify({
    width: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    window: width,
    wide,
    tables: cut.filter(box => box.querySelector("table")).map(box => box.innerText.slice(0, 60)),
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
  });
})()"""
"""What a page's elements are: those that leave the page, tables that scroll, pictures that did not load."""


class Browser:
    """A browser that opens pages one after the other."""

    def __init__(self):
        self.profile = tempfile.mkdtemp()
        ours, theirs = os.pipe(), os.pipe()  # what it reads at 3, and writes at 4
        descriptors = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
        command = [*pdf.command(pdf.browser(), self.profile), "--remote-debugging-pipe", "--hide-scrollbars"]
        self.process = subprocess.Popen(
            ["bash", "-c", descriptors, "bash", *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.writer, self.reader = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.number, self.said, self.session = 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(20)
        self.writer.close()
        self.reader.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _read(self):
        text = bytearray()
        while (character := self.reader.read(1)) not in (b"\0", b""):
            text += character
        message = json.loads(text)
        if "method" in message:
            self.said.append(message)
        return message

    def call(self, method, **parameters):
        """Calls a method of the DevTools protocol and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while (answer := self._read()).get("id") != self.number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page, width, dark=False):
        """Opens a page in a window of a width and returns what `MEASURE` says, with the messages of the console."""
        self.said.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(message["method"] == "Page.loadEventFired" for message in self.said):
            self._read()
        self.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        self.evaluate("Promise.all([...document.images].map(one => one.decode().catch(() => 0)))")
        measured = json.loads(self.evaluate(MEASURE))
        time.sleep(0.05)
        complaints = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        measured["console"] = [message["params"] for message in self.said if message["method"] in complaints]
        return measured

    def evaluate(self, expression):
        """Returns the value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def picture(self, out, top=0, height=None):
        """Writes the page as PNG."""
        size = json.loads(self.evaluate(MEASURE))
        clip = {
            "x": 0,
            "y": top,
            "width": size["window"],
            "height": height or size["height"] - top,
            "scale": 1,
        }
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(shot["data"]))
