"""An issuer of tokens: keys, a JWK Set, tokens signed with them; and a server that shows the set."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://id.example.com"
AUDIENCE = "llm"


class Issuer:
    """Three keys, `rsa`, `ec` and `ed`; making them takes a moment, so one issuer serves many tests."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
        self.algorithms = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}

    def jwk(self, name: str, **fields: Any) -> dict[str, Any]:
        """The public half."""
        maker: Any = {"rsa": RSAAlgorithm, "ec": ECAlgorithm, "ed": OKPAlgorithm}[name]
        return {**json.loads(maker.to_jwk(self.private[name].public_key())), "kid": name, **fields}

    def jwks(self, *names: str) -> bytes:
        return json.dumps({"keys": [self.jwk(name) for name in names or self.private]}).encode()

    def token(self, key: str = "rsa", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is said otherwise; a claim of None is left out."""
        now = time.time()
        all_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "iat": now, "exp": now + 300} | claims
        said = {name: value for name, value in all_claims.items() if value is not None}
        fields = {"kid": key, **(headers or {})}
        # The signature alone: PyJWT would not sign claims that are wrong in kind.
        return jwt.PyJWS().encode(
            json.dumps(said).encode(),
            self.private[key],
            algorithm=self.algorithms[key],
            headers={name: value for name, value in fields.items() if value is not None},
        )


class JwksServer:
    """Shows a JWK Set and the discovery document. `asked` counts; `status` may be made an error."""

    def __init__(self, jwks: bytes) -> None:
        self.jwks = jwks
        self.status = 200
        self.asked: list[str] = []
        self.url = ""
        self.issuer = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.issuer or self.url, "jwks_uri": f"{self.url}/jwks"})
        return web.Response(body=self.jwks, content_type="application/json")


@asynccontextmanager
async def serving(jwks: bytes) -> AsyncIterator[JwksServer]:
    """A `JwksServer` on a free port."""
    server = JwksServer(jwks)
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}"
        yield server
    finally:
        await runner.cleanup()
