"""Rooms: the hub for the members here, the bridge to those elsewhere. Floor 3."""
