"""What people see of a run: header, lines, dashboards, and the story its report tells."""
