"""Scraping a proxy's metrics once a second, as a Prometheus server would, while it is being measured."""

import http.client
import threading


class Scraper:
    """One thread; `target` is (port, path) of the peer being measured, or None."""

    def __init__(self) -> None:
        self.target: tuple[int, str] | None = None
        self.scrapes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            target = self.target
            if target is not None:
                self._scrape(*target)

    def _scrape(self, port: int, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().read():
                self.scrapes += 1
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()
