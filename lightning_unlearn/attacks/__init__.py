"""Membership-inference attacks on outputs."""
