//! Clock, disk, randomness and tasks as a door to the outside world; an operating-system and a simulated implementation of each.
