//! Topics: names to subscribers. Holds connection ids, never connections.
