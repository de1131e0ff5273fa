"""The course's own machinery: nothing outside it imports it."""
