"""What the process says about itself.

    log       set-up of logging: one line an event on standard error, JSON or text, safe to show on a terminal
    rate      how many lines one stranger can cause
    security  the security-event stream's own file; what such an event is, `scep_ra.security_events` says

A module that logs never imports this package. It says

    _log = structlog.stdlib.get_logger(__name__)
    _log.info("certificate_issued", profile=profile, device_id=device_id)

The event is a snake_case name, everything else a keyword; who caused it is `source`. Escaping, cutting and keeping
secrets out happen here, so callers pass text as they got it. Records of the standard `logging` take the same way.
"""
