"""What people read: HTML pages made from inspections."""
