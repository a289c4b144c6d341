"""Nothing is lost: every job is in a ledger from before its message is published until its result is stored.

Celery on Redis alone loses tasks when a worker or the server dies at the wrong moment: BRPOP takes a message off its list
before anybody has written down who holds it. So whoever publishes a task enters it first (:mod:`~.transport`, plugged in by
:mod:`~.amqp`), storing its result strikes it out (:mod:`~.results`), and a sweeper publishes again what stays open without
waiting or running (:mod:`~.sweeper`). Consuming vets each message (:mod:`~.messages`): a malformed one is moved aside with
the reason, and ends no worker.

Nothing is imported here: who needs one of these modules need not load Celery for another.
"""

__all__ = ()
