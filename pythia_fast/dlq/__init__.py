"""Dead letters after the run: what there is, and what becomes of it.

    DeadLetterStore ──entries──▶ Filter ──▶ list, show
      file, Kafka                   │
         ▲                          ├──▶ drop ─────────────────────────┐
         │                          └──▶ requeue ──▶ RequeueTarget     │
         │                                             Kafka, file     │
         └────────settle: letters that were dealt with◀──confirmed─────┘

A broker takes part by a store (``store.py``) and a target (``target.py``) of its own.
"""
