"""Dead letters after the run: what there is, and what becomes of it.

    DeadLetterStore ──entries──▶ Filter ──▶ list, show
      file, Kafka,                  │
      Redis, RabbitMQ               │
         ▲                          ├──▶ drop ─────────────────────────┐
         │                          └──▶ requeue ──▶ RequeueTarget     │
         │                                             the same kinds  │
         └────────settle: letters that were dealt with◀──confirmed─────┘

A broker takes part by a store (``store.py``) and a target (``target.py``) of its own.
"""
