//! Who is let in and what is launched next, as a pure function of state and time.
