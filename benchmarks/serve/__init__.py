"""Single-row and bulk requests per second of the endpoint, beside FastAPI, LitServe, BentoML and bare ASGI."""
