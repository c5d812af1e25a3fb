"""What is remembered: devices, challenges, enrollments, certificates and CRLs.

`base` holds the ports, `sql` every statement once, `sqlite` the database under it, `schema` the numbered migrations.
No decision is taken here beyond what must be atomic.
"""
