"""Publishing from other programs: to rooms, users and sessions of gateways, by way of the store that those share.

`Publisher` is for ordinary code, such as a Celery task or a cron job, `AsyncPublisher` for coroutines. Both send what a
gateway's own workers send each other (`stickygw.wire.envelope`), at most once: nothing is ever sent again.
"""

from stickygw.publisher.awaiting import AsyncPublisher
from stickygw.publisher.blocking import Publisher

__all__ = ["AsyncPublisher", "Publisher"]
