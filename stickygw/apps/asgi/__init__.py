"""Any ASGI application, served by uvicorn's protocol classes on our own transport. Needs the extra ``asgi``."""
